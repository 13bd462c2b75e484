"""Every consumer accepts what the check of a data set accepts: training, evaluating, inferring, scoring, the report."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tumour.cases.find import find_cases

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, run
from tests.scans.test_dicom import write_series
from tools.check import check
from tools.patients.synthetic import make_patients
from tools.score import score

TURN = nib.eulerangles.euler2mat(0.1, 0.05, -0.08)


def with_fourth_axis(path, image):
    return nib.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine)


def shifted(path, image):
    mm = 0.05 if path.name.endswith(("_t2.nii.gz", "_seg.nii.gz")) else 0
    return nib.Nifti1Image(np.asarray(image.dataobj), image.affine + np.eye(4, k=3) * mm)


def as_nifti2(path, image):
    return nib.Nifti2Image(np.asarray(image.dataobj), image.affine)


def with_slope(path, image):
    header = image.header.copy()
    header.set_data_dtype(np.int16)
    header.set_slope_inter(1.00002, 0)  # as some programs save labels
    return nib.Nifti1Image(np.asarray(image.dataobj, float) * 1.00002, image.affine, header)


def oblique(path, image):
    return nib.Nifti1Image(np.asarray(image.dataobj), nib.affines.from_matvec(TURN) @ image.affine)


CHANGES = [with_fourth_axis, shifted, as_nifti2, with_slope, oblique]
NAMES = [change.__name__ for change in CHANGES]
UNLABELLED = ["without_t2", "dicom"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A data set whose first five cases each have one unusual form, and the results of each consumer on it."""
    folder = tmp_path_factory.mktemp("odd")
    data, new = folder / "data", folder / "new"
    make_patients(data, cases=8, size=40)
    cases = find_cases(str(data), COHORTS["brats2021"], FOUR).complete
    for case, change in zip(cases, CHANGES, strict=False):
        for path in (data / case.name).iterdir():
            nib.save(change(path, nib.load(path)), path)
    shutil.copytree(data, new, ignore=lambda _, names: [name for name in names if "_seg" in name])
    (new / cases[5].name / f"{cases[5].name}_t2.nii.gz").unlink()
    for number, (name, path) in enumerate(zip(FOUR, cases[6].images, strict=True)):
        write_series(path, new / "dicom" / name, 900 + number)
    shutil.rmtree(new / cases[6].name)

    bundle, settings = BUNDLES[0], {"modality_dropout": 0.3, "report_at_end": True}
    done = {"training": run("training", bundle, folder, "brats2021", data, test_share=0, **settings)}
    for name in ("model.pt", "settings.json"):  # without the record of patients, so that all of them are scored
        (folder / "other").mkdir(exist_ok=True)
        shutil.copy(folder / "models" / name, folder / "other")
    settings["ckpt_dir"] = folder / "other"
    done["evaluating"] = run("evaluating", bundle, folder / "evaluated", "brats2021", data, test_share=1.0, **settings)
    done["inferring"] = run("inferring", bundle, folder / "inferred", "brats2021", new, **settings)
    for name, each in done.items():
        assert each.returncode == 0, f"{name}: {each.stdout[-2000:]}{each.stderr[-4000:]}"
    return folder, [case.name for case in cases]


def segmented(folder, name):
    return folder / "inferred" / "results" / "segmentations" / f"{name}.nii.gz"


@pytest.mark.parametrize("change", NAMES)
def test_the_check_accepts_it_and_it_is_used_for_training(odd, change):
    folder, names = odd
    assert check("brats2021", str(folder / "data"), str(folder / "check")) in (0, 1)
    rows = pd.read_csv(folder / "check" / "check.csv").set_index("case")
    assert rows.loc[names[NAMES.index(change)], "status"] != "unusable"
    patients = json.loads((folder / "models" / "patients.json").read_text())
    assert names[NAMES.index(change)] in patients["train"] + patients["validate"]


@pytest.mark.parametrize("change", NAMES)
def test_evaluating_and_the_command_give_it_the_same_scores(odd, change):
    folder, names = odd
    name = names[NAMES.index(change)]
    predictions = folder / "evaluated" / "results" / "segmentations"
    score(str(folder / "data"), str(predictions), "brats2021", str(folder / "scored"), workers=1)
    ours, theirs = (
        pd.read_csv(place / "scores.csv").set_index(["case", "region"]).loc[name, ["dice", "hd95", "reference_ml"]]
        for place in (folder / "evaluated" / "results" / "scores", folder / "scored")
    )
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)  # a slope of 1.00002 changes the volume of a voxel's spacing


@pytest.mark.parametrize("change", [*NAMES, *UNLABELLED])
def test_it_is_segmented_on_its_own_grid_and_drawn_in_the_report(odd, change):
    folder, names = odd
    name = {"without_t2": names[5], "dicom": "dicom"}.get(change) or names[NAMES.index(change)]
    original = nib.load(next((folder / "data" / (names[6] if change == "dicom" else name)).glob("*_t1.nii.gz")))
    made = nib.load(segmented(folder, name))
    assert made.shape == original.shape[:3] and np.allclose(made.affine, original.affine, atol=1e-4)
    assert (folder / "inferred" / "results" / "report" / "cases" / f"{name}.js").is_file()
    text = (folder / "inferred" / "results" / "report" / "report.html").read_text()
    assert text.count('<details class="case"') == 8 and "case was left out" in text


def test_its_label_is_drawn_as_the_reference(odd):
    folder, names = odd
    report = folder / "evaluated" / "results" / "report"
    assert {f"{name}.js" for name in names} <= {path.name for path in (report / "cases").iterdir()}
