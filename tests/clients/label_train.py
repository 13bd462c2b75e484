"""MONAI Label's training task on a release: `python label_train.py BUNDLE STUDY` trains twice, then segments a scan."""

import sys
from pathlib import Path

import nibabel as nib
import no_torchvision  # noqa: F401
import numpy as np
import torch
from monailabel.datastore.local import LocalDatastore
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask

bundle, study = sys.argv[1:]
best = Path(bundle, "models", "model.pt")
datastore = LocalDatastore(study)
states = []
for epochs in (2, 2):  # the second starts from the weights of the first and takes as long
    BundleTrainTask(bundle, {})({"model": "m", "device": "cpu", "max_epochs": epochs, "val_split": 0.25}, datastore)
    states.append(torch.load(best, weights_only=True))
assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0]), "the second round trained nothing"

task = BundleInferTask(bundle, {})
assert task.config()["model_filename"] == ["model.pt"]
scan = datastore.datalist()[0]["image"]
path, result = task({"image": scan, "device": "cpu", "result_extension": ".nii.gz", "result_dtype": "uint8"})
used = next(iter(task._networks.values()))[0].state_dict()
assert all(torch.equal(used[name], value.float()) for name, value in states[1].items()), "not the trained weights"
made = nib.load(path)
assert np.allclose(made.affine, nib.load(scan).affine) and made.get_data_dtype() == np.uint8
print("trained twice, segmented", result["label_names"])
