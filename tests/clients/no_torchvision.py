"""Import this before MONAI Label, which imports torchvision but does not need it; it may not exist for this torch."""

import sys
from types import ModuleType

utils = ModuleType("torchvision.utils")
utils.make_grid = utils.save_image = None  # type: ignore[attr-defined]
sys.modules |= {"torchvision": ModuleType("torchvision"), "torchvision.utils": utils}
