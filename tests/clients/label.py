"""MONAI Label's app for bundles on a release: `python label.py BUNDLE SCAN MAP` prints the result for a 4-D scan.

The folder of the scan is the study; the label map is saved in it as a viewer does.
"""

import sys
from pathlib import Path

import nibabel as nib
import no_torchvision  # noqa: F401
import numpy as np

sys.path.insert(0, f"{sys.prefix}/monailabel/sample-apps/monaibundle")
from main import MyApp  # noqa: E402

bundle, scan, expected = map(Path, sys.argv[1:])
Path("app/model").mkdir(parents=True)
Path("app/model", bundle.name).symlink_to(bundle)
app = MyApp("app", str(scan.parent), {"models": bundle.name, "zoo_source": "ngc", "sam2": "false"})
case = scan.name.removesuffix(".nii.gz")
done = app.infer({"model": bundle.name, "image": case, "device": "cpu", "save_label": True, "label_tag": "final"})
made, wanted = nib.load(scan.parent / "labels" / "final" / scan.name), nib.load(expected)
assert np.allclose(made.affine, wanted.affine) and made.get_data_dtype() == np.uint8
assert np.array_equal(made.dataobj, wanted.dataobj)
print(done["params"]["label_names"])
