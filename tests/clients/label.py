"""MONAI Label's inference task on a release: `python label.py BUNDLE SCAN MAP` prints the result for a 4-D scan."""

import sys

import nibabel as nib
import no_torchvision  # noqa: F401
import numpy as np
from monailabel.tasks.infer.bundle import BundleInferTask

bundle, scan, expected = sys.argv[1:]
task = BundleInferTask(bundle, {})
path, result = task({"image": scan, "device": "cpu", "result_extension": ".nii.gz", "result_dtype": "uint8"})
made, wanted = nib.load(path), nib.load(expected)
assert np.allclose(made.affine, wanted.affine) and made.get_data_dtype() == np.uint8
assert np.array_equal(made.dataobj, wanted.dataobj)
print(result["label_names"])
