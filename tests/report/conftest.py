"""A finished run with its report, and what writes it."""

import json
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tumour.cases.find import find_cases
from tumour.files import save_json

from tests.cohorts import COHORTS, FOUR
from tools.report.report import write_report
from tools.score import score

METRICS = [f"{part}_{m}_{r}" for part in ("train", "validate") for m in ("dice", "iou") for r in ("TC", "WT", "ET")]


def training_log(epochs=3, best=2):
    """A training.csv with one best validation and none in the first epoch."""
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "seconds": 9.5, "learning_rate": 0.001, "loss": 1 / epoch, "validate_loss": 2 / epoch}
        row |= {name: 0.9 if epoch == best else 0.5 for name in ["train_dice", "validate_dice", *METRICS]}
        row["validate_iou"] = 0.8 if epoch == best else 0.4
        rows.append({name: None if epoch == 1 and name.startswith("val") else v for name, v in row.items()})
    return pd.DataFrame(rows)


def record(folder, cases=(), left_out=(), name="inferring", **more):
    """Write the record of a run with its cases."""
    content = {"run": name, "state": "finished", "started": "2026-01-01 10:00", "seconds": 1.5, "device": "cpu"}
    content |= {"peak_memory_gb": {}, "versions": {}, **more, "cases": [case.record() for case in cases]}
    content["left_out"] = [asdict(each) for each in left_out]
    save_json(content, folder / "runs" / f"{name}.json")


def report(data, folder, cohort="brats2021"):
    """The text of the report of the run in `folder`."""
    if data:
        found = find_cases(str(data), COHORTS[cohort], FOUR)
        record(folder, found.complete, found.left_out)
    write_report(
        bundle="resunet",
        cohort=COHORTS[cohort],
        modalities=FOUR,
        output_dir=str(folder),
        ckpt_dir=str(folder),
        scores=str(folder / "scores"),
        segmentations=str(folder / "segmentations"),
        folder=str(folder / "report"),
    )
    return (folder / "report" / "report.html").read_text()


def predict(data, folder, cases=6):
    """Predictions: the references, moved further in each case; the first is perfect."""
    (folder / "segmentations").mkdir(parents=True)
    for shift, case in enumerate(find_cases(str(data), COHORTS["brats2021"], FOUR).complete[:cases]):
        label = nib.load(case.label)
        moved = np.roll(np.asarray(label.dataobj), 2 * shift, axis=0)
        nib.save(nib.Nifti1Image(moved, label.affine), folder / "segmentations" / f"{case.name}.nii.gz")


@pytest.fixture(scope="session")
def finished_run(patients, tmp_path_factory):
    """The folder of a run that trained, segmented and was scored by lesions, with its report."""
    folder, data = tmp_path_factory.mktemp("run"), patients("brats2021")
    predict(data, folder)
    score(str(data), str(folder / "segmentations"), "brats2021", str(folder / "scores"), "glioma2023", workers=1)
    training_log().to_csv(folder / "training.csv", index=False)
    (folder / "patients.json").write_text(json.dumps({"train": ["P1", "P2"], "validate": ["P3"], "test": ["P4"]}))
    report(data, folder)
    return folder
