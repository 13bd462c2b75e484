"""Import this before MONAI Label, which imports torchvision: that may have no build for this torch, and needs none."""

import sys
from types import ModuleType

utils = ModuleType("torchvision.utils")
utils.make_grid = utils.save_image = None  # type: ignore[attr-defined]
sys.modules |= {"torchvision": ModuleType("torchvision"), "torchvision.utils": utils}
