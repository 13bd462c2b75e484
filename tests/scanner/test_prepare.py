"""Raw scans become a case in the form of BraTS; what cannot be prepared is listed, and the rest is done."""

import json
import logging
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from tumour.cases.find import find_cases
from tumour.errors import CaseError, InputError
from tumour.scanner import prepare, strip
from tumour.scanner.prepare import PICTURE, RECORD, Prepared, finish, is_prepared, prepare_patients, register_all
from tumour.scans.grid import Scan, difference
from tumour.scans.readers import read_scan

from tests.cohorts import COHORTS, FOUR
from tests.scanner.heads import AFFINE, SHAPE, brain, distance, head, motion, needs
from tests.scanner.test_study import NAMES

COHORT = COHORTS["brats2021"]
TISSUE = {
    "T1": {},
    "T1ce": {"spot": 500},
    "T2": {"skull": 150, "brain": 260, "fluid": 420, "spot": 330},
    "FLAIR": {"skull": 150, "brain": 260, "fluid": 90, "spot": 420},
}
MOTIONS = {name: motion((2 * k, -3, k), (5 - k, 4, 3 * k)) for k, name in enumerate(FOUR)}
ATLAS = replace(head(), path="atlas")


def save(scan, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(scan.data, scan.affine), path)


@pytest.fixture
def raw(tmp_path):
    """A folder with one patient, whose scans are in different poses."""
    for name, pose in MOTIONS.items():
        save(
            head(motion=pose, noise=1, **TISSUE[name]), tmp_path / "raw" / "P1" / f"P1{COHORT.suffixes[name][0]}.nii.gz"
        )
    return tmp_path / "raw"


@pytest.fixture
def quick(monkeypatch):
    """The true motions instead of elastix, the true brain instead of HD-BET, and a small atlas."""
    monkeypatch.setattr(prepare, "atlas_head", lambda grid, motion: ATLAS)
    monkeypatch.setattr(prepare, "brain_of", lambda scan, device: brain(scan))

    def known(scans, atlas):
        return {name: np.linalg.inv(MOTIONS[name]) for name in scans}

    monkeypatch.setattr(prepare, "register_all", known)


def run(raw, out):
    return prepare_patients(str(raw), str(out), COHORT, NAMES, np.eye(4).tolist(), np.eye(4).tolist(), "cpu")


def test_a_patient_becomes_a_case_on_the_atlas_grid_without_skull(raw, quick, tmp_path):
    assert run(raw, tmp_path / "out") == []
    (case,) = find_cases(str(tmp_path / "out"), COHORT, FOUR).complete
    for name, path in case.files.items():
        scan = read_scan(path)
        assert difference(ATLAS, scan) is None
        assert np.array_equal(scan.data > 0, brain(ATLAS))
        inside = np.corrcoef(scan.data[brain(ATLAS)], head(noise=1, **TISSUE[name]).data[brain(ATLAS)])[0, 1]
        assert inside > 0.95, name  # resampled once
    assert (tmp_path / "out" / "P1" / PICTURE).is_file()


def test_the_record_says_where_the_scans_are_on_the_atlas(raw, quick, tmp_path):
    run(raw, tmp_path / "out")
    record = Prepared.read(tmp_path / "out" / "P1" / RECORD)
    assert record.files["T2"] == [str(raw / "P1" / "P1_t2.nii.gz")] and record.shapes["T2"] == list(SHAPE)
    assert np.allclose(record.grid("T2").affine, np.linalg.inv(MOTIONS["T2"]) @ AFFINE)


def test_a_patient_that_is_prepared_already_is_kept(raw, quick, tmp_path, monkeypatch):
    run(raw, tmp_path / "out")
    monkeypatch.setattr(prepare, "prepare_case", lambda *args: pytest.fail("it is prepared again"))
    assert run(raw, tmp_path / "out") == []


def test_what_cannot_be_prepared_is_listed_and_the_rest_is_done(raw, quick, tmp_path, caplog):
    shutil.copytree(raw / "P1", raw / "P2")
    (raw / "P2" / "P1_t2.nii.gz").unlink()
    shutil.copytree(raw / "P1", raw / "P3")
    shutil.copy(raw / "P1" / "P1_t1ce.nii.gz", raw / "P3" / "other_t1ce.nii.gz")
    shutil.copytree(raw / "P1", raw / "P4")
    (raw / "P4" / "P1_flair.nii.gz").write_bytes(b"")
    (raw / "P5").mkdir()
    left_out = run(raw, tmp_path / "out")
    sentences = dict(zip("P2 P3 P4 P5".split(), map(str, left_out), strict=True))
    assert [path.parent.name for path in sorted((tmp_path / "out").glob(f"*/{RECORD}"))] == ["P1"]
    assert all(text.startswith(name) for name, text in sentences.items())
    assert "no series that is certainly T2" in sentences["P2"] and "may all be T1ce" in sentences["P3"]
    assert "is empty" in sentences["P4"] and "neither DICOM nor NIfTI" in sentences["P5"]
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stop:
        finish(left_out)
    assert stop.value.code == 1 and all(text in caplog.text for text in sentences.values())


def test_if_nothing_can_be_prepared_the_run_stops_with_the_reason(raw, quick, tmp_path):
    (raw / "P1" / "P1_t2.nii.gz").unlink()
    with pytest.raises(InputError, match="No patient in .* can be prepared; P1: it has no series that is certainly T2"):
        run(raw, tmp_path / "out")


def test_prepared_cases_are_not_written_between_the_raw_scans(raw, quick):
    for folder in (raw, raw / "prepared", ""):
        with pytest.raises(InputError, match="must be a folder outside scans_dir"):
            run(raw, folder)


def test_a_case_in_the_form_of_brats_passes_untouched(quick, tmp_path):
    data = np.zeros((240, 240, 155), np.int16)
    data[100:140, 90:150, 60:100] = 7
    for suffix in ("t1", "t1ce", "t2", "flair"):
        save(Scan("x", data, np.diag([-1.0, -1, 1, 1])), tmp_path / "raw" / "B1" / f"B1_{suffix}.nii.gz")
    run(tmp_path / "raw", tmp_path / "out")
    for path in (tmp_path / "raw" / "B1").iterdir():
        assert (tmp_path / "out" / "B1" / path.name).read_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "out" / "B1" / RECORD).read_text())["motions"]["T2"] == np.eye(4).tolist()
    assert not is_prepared({"T1": Scan("x", data + 1 + np.arange(155, dtype=np.int16), np.eye(4))})


def test_a_registration_that_failed_is_refused(monkeypatch):
    monkeypatch.setattr(prepare, "register", lambda fixed, moving: motion(shift=(120, 0, 0)))
    with pytest.raises(CaseError, match=r"the registration of T1ce failed \(\d+% of the heads overlap\)"):
        register_all({"T1ce": head()}, ATLAS)


@needs("itk-elastix")
def test_all_modalities_are_registered_to_the_atlas_through_t1ce():
    scans = {name: head(motion=pose, **TISSUE[name]) for name, pose in MOTIONS.items()}
    for name, found in register_all(scans, ATLAS).items():
        assert distance(found @ MOTIONS[name], np.eye(4)) < 2.5, name


@pytest.mark.parametrize(("radius", "ml"), [(40, "267"), (100, "4,1")])
def test_a_mask_that_cannot_be_a_brain_is_refused(radius, ml):
    centre = np.indices((120, 120, 120)) - 60
    mask = Scan("x", (centre**2).sum(axis=0) <= (radius / 2) ** 2, np.diag([2.0, 2, 2, 1]))
    with pytest.raises(CaseError, match=f"has {ml}.* ml, and a brain has 700 to 2,300 ml"):
        strip.require_brain(mask)


def test_the_brain_is_the_largest_piece_without_holes():
    mask = np.zeros((12, 12, 12), bool)
    mask[1:8, 1:8, 1:8] = True
    mask[4, 4, 4] = False
    mask[10, 10, 10] = True
    found = strip.largest_piece(mask)
    assert found[4, 4, 4] and not found[10, 10, 10] and found.sum() == 343
    assert not strip.largest_piece(np.zeros((4, 4, 4), bool)).any()
