"""MONAI Label's inference task on a release: `python label.py BUNDLE SCAN MAP` prints what it made of a 4-D scan."""

import sys
from types import ModuleType

# MONAI Label draws with torchvision, of which there may be no build for this torch; segmenting needs nothing of it
utils = ModuleType("torchvision.utils")
utils.make_grid = utils.save_image = None  # type: ignore[attr-defined]
sys.modules |= {"torchvision": ModuleType("torchvision"), "torchvision.utils": utils}

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from monailabel.tasks.infer.bundle import BundleInferTask  # noqa: E402

bundle, scan, expected = sys.argv[1:]
task = BundleInferTask(bundle, {})
path, told = task({"image": scan, "device": "cpu", "result_extension": ".nii.gz", "result_dtype": "uint8"})
made, wanted = nib.load(path), nib.load(expected)
assert np.allclose(made.affine, wanted.affine) and made.get_data_dtype() == np.uint8
assert np.array_equal(made.dataobj, wanted.dataobj)
print(told["label_names"])
