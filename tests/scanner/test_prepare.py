"""Raw scans become a case in the form of BraTS; what cannot be prepared is listed, and the rest is done."""

import json
import logging
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from tumour.cases.case import Case
from tumour.cases.find import find_cases
from tumour.errors import CaseError, InputError
from tumour.files import save_json
from tumour.scanner import prepare, strip
from tumour.scanner.prepare import (
    PICTURE,
    RECORD,
    Prepared,
    finish,
    is_prepared,
    patients_to_prepare,
    prepare_patients,
    register_all,
    with_patients,
)
from tumour.scanner.register import moved
from tumour.scans.grid import Scan, difference
from tumour.scans.readers import read_scan

from tests.cohorts import COHORTS, FOUR
from tests.scanner.heads import AFFINE, SHAPE, brain, distance, head, motion, needs
from tests.scanner.test_register import OBLIQUE
from tests.scanner.test_study import NAMES

COHORT = COHORTS["brats2021"]
TISSUE = {
    "T1": {},
    "T1ce": {"spot": 500},
    "T2": {"skull": 150, "brain": 260, "fluid": 420, "spot": 330},
    "FLAIR": {"skull": 150, "brain": 260, "fluid": 90, "spot": 420},
}
MOTIONS = {name: motion((2 * k, -3, k), (5 - k, 4, 3 * k)) for k, name in enumerate(FOUR)}
ATLAS = replace(head(), path="the atlas")


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

    def known(scans, fixed, same):
        return {name: np.linalg.inv(MOTIONS[name]) for name in scans}

    monkeypatch.setattr(prepare, "register_all", known)


def run(raw, out, cohort=COHORT):
    patients = patients_to_prepare(str(raw), str(out), cohort)
    return prepare_patients(patients, str(out), cohort, NAMES, np.eye(4).tolist(), np.eye(4).tolist(), "cpu")


def test_a_patient_becomes_a_case_on_the_atlas_grid_without_skull(raw, quick, tmp_path):
    assert run(raw, tmp_path / "out") == []
    (case,) = find_cases(str(tmp_path / "out"), COHORT, FOUR).complete
    for name, path in case.files.items():
        scan = read_scan(path)
        assert difference(ATLAS, scan) is None
        assert (scan.data > 0)[brain(ATLAS)].mean() > 0.95 and not scan.data[~brain(ATLAS)].any()
        inside = np.corrcoef(scan.data[brain(ATLAS)], head(noise=1, **TISSUE[name]).data[brain(ATLAS)])[0, 1]
        assert inside > 0.95, name  # resampled once
    assert (tmp_path / "out" / "P1" / PICTURE).is_file()


def test_the_record_says_where_the_scans_are_on_the_atlas(raw, quick, tmp_path):
    run(raw, tmp_path / "out")
    record = Prepared.read(tmp_path / "out" / "P1" / RECORD)
    assert record.files["T2"] == [str(raw / "P1" / "P1_t2.nii.gz")] and record.shapes["T2"] == list(SHAPE)
    assert np.allclose(record.grid("T2").affine, np.linalg.inv(MOTIONS["T2"]) @ AFFINE)


TIMES = COHORTS["brats2023_gli"]  # P1-1 and P1-2 are time points of P1


@pytest.fixture
def times(raw, quick, monkeypatch):
    """Three time points of P1 and one of P2; each registration is listed with what it was to."""
    for case in ("P1-1", "P1-2", "P1-3", "P2-1"):
        for name in FOUR:
            source, target = raw / "P1" / f"P1{COHORT.suffixes[name][0]}.nii.gz", raw / case
            target.mkdir(exist_ok=True)
            shutil.copy(source, target / f"{case}{TIMES.suffixes[name][0]}.nii.gz")
    shutil.rmtree(raw / "P1")
    done, known = [], prepare.register_all

    def listed(scans, fixed, same):
        done.append((fixed, same))
        return known(scans, fixed, same)

    monkeypatch.setattr(prepare, "register_all", listed)
    return done


def registered(out):
    return {path.parent.name: Prepared.read(path).registered_to for path in sorted(out.glob(f"*/{RECORD}"))}


def test_later_time_points_are_registered_to_the_first_where_it_lies_on_the_atlas(raw, times, tmp_path):
    assert run(raw, tmp_path / "out", TIMES) == []
    assert registered(tmp_path / "out") == {"P1-1": ATLAS.path, "P1-2": "P1-1", "P1-3": "P1-1", "P2-1": ATLAS.path}
    place, first = np.linalg.inv(MOTIONS["T1ce"]) @ AFFINE, read_scan(str(raw / "P1-1" / "P1-1-t1c.nii.gz"))
    for fixed, same in times[1:3]:
        assert np.allclose(fixed.affine, place) and np.array_equal(fixed.data, first.data) and same
    assert times[0] == (ATLAS, False) and times[3] == (ATLAS, False)


def test_where_the_first_time_point_fails_the_next_takes_its_place_for_good(raw, times, tmp_path):
    bad, kept = raw / "P1-1" / "P1-1-t2w.nii.gz", tmp_path / "kept.nii.gz"
    shutil.move(bad, kept)
    assert [each.case for each in run(raw, tmp_path / "out", TIMES)] == ["P1-1"]
    assert registered(tmp_path / "out") == {"P1-2": ATLAS.path, "P1-3": "P1-2", "P2-1": ATLAS.path}
    shutil.move(kept, bad)
    assert run(raw, tmp_path / "out", TIMES) == [] and len(times) == 4  # the others are not prepared again
    assert registered(tmp_path / "out")["P1-1"] == "P1-2"


def record(out, case, patient="", registered_to=ATLAS.path):
    """A prepared case, as far as its record tells, and its T1ce."""
    scan, path = Scan("", np.ones((20, 18, 16), np.int16), AFFINE), out / "raw" / f"{case}.nii.gz"
    save(scan, path)
    values = [str(path)], list(scan.shape), AFFINE.tolist(), np.eye(4).tolist()
    save_json(vars(Prepared(patient, *({"T1ce": value} for value in values), registered_to)), out / case / RECORD)
    return path


@pytest.mark.parametrize(("patient", "to"), [("X", "P1-2"), ("P1", "P1-3"), ("Y", ATLAS.path)])
def test_the_first_time_point_is_of_the_patient_id_if_there_is_one_and_has_its_skull(tmp_path, patient, to):
    record(tmp_path, "P1-1", registered_to="")  # copied without skull
    record(tmp_path, "P1-2", patient="X")
    record(tmp_path, "P1-3")
    record(tmp_path, "P1-4")
    assert prepare.fixed_head(ATLAS, tmp_path, patient, TIMES)[0] == to


def test_a_time_point_that_must_be_registered_to_a_missing_or_changed_scan_is_left_out(tmp_path):
    path = record(tmp_path, "P1-1")
    for change, why in (
        (lambda: save(Scan("", np.ones((20, 18, 15), np.int16), AFFINE), path), "is not the scan that was prepared"),
        (path.unlink, "does not exist"),
    ):
        change()
        with pytest.raises(CaseError, match=f"to the T1ce of P1-1, .*{path}' {why}.*delete the prepared case P1-1"):
            prepare.fixed_head(ATLAS, tmp_path, "P1", TIMES)


@needs("itk-elastix")
def test_two_time_points_of_a_patient_lie_closer_together_than_the_atlas_brings_them():
    poses = motion((6, -4, 9), (8, -5, 12)), motion((-9, 7, -4), (-12, 10, -6))
    first = head(motion=poses[0], warp=4, **TISSUE["T1ce"])
    later = head(OBLIQUE, (150, 150, 40), motion=poses[1], warp=4, skull=350, brain=180, spot=230)
    place = register_all({"T1ce": first}, ATLAS, same=False)["T1ce"]
    alone = register_all({"T1ce": later}, ATLAS, same=False)["T1ce"]
    together = register_all({"T1ce": later}, moved(first, place), same=True)["T1ce"]
    apart = [distance(found @ poses[1], place @ poses[0]) for found in (alone, together)]
    assert apart[1] < 1 and apart[1] < 0.7 * apart[0], apart  # mm


def test_a_patient_that_is_prepared_already_is_kept(raw, quick, tmp_path, monkeypatch):
    run(raw, tmp_path / "out")
    monkeypatch.setattr(prepare, "prepare_case", lambda *args: pytest.fail("it is prepared again"))
    assert run(raw, tmp_path / "out") == []
    shutil.move(raw, tmp_path / "other")  # another patient may have the same name
    with pytest.raises(InputError, match=r"P1' was prepared from '.*raw.*'; delete it, or give another dataset_dir"):
        run(tmp_path / "other", tmp_path / "out")


def test_two_links_to_folders_of_one_name_are_two_patients(raw, quick, tmp_path):
    (tmp_path / "links").mkdir()
    for name in "AB":
        shutil.copytree(raw / "P1", tmp_path / name / "scans")
        (tmp_path / "links" / name).symlink_to(tmp_path / name / "scans")
    run(tmp_path / "links", tmp_path / "out")
    assert [path.parent.name for path in sorted((tmp_path / "out").glob(f"*/{RECORD}"))] == ["A", "B"]


def test_the_series_of_one_patient_are_its_time_points_whatever_the_folders_are_called(tmp_path):
    cases = []
    for name, patient in (("P-1", "X"), ("P-2", "Y"), ("Q-1", "")):
        record = Prepared(patient, {}, {}, {}, {}, "")
        save_json(vars(record), tmp_path / name / RECORD)
        cases.append(Case(name, name[0], (str(tmp_path / name / "x.nii.gz"),), ("T1",)))
    assert [case.patient for case in with_patients(cases)] == ["X", "Y", "Q"]


def test_a_scan_that_shows_part_of_the_brain_has_no_values_in_the_rest_and_one_that_shows_little_is_refused(
    raw, quick, tmp_path
):
    path = raw / "P1" / "P1_flair.nii.gz"
    flair = read_scan(str(path))
    save(replace(flair, data=flair.data[..., :58]), path)
    run(raw, tmp_path / "out")
    share = (read_scan(str(tmp_path / "out" / "P1" / path.name)).data > 0).sum() / brain(ATLAS).sum()
    assert 0.85 < share < 0.99
    save(replace(flair, data=flair.data[..., :36]), path)
    with pytest.raises(InputError, match="its FLAIR shows only [4-6].% of the brain"):
        run(raw, tmp_path / "out2")


def test_what_cannot_be_prepared_is_listed_and_the_rest_is_done(raw, quick, tmp_path, caplog):
    shutil.copytree(raw / "P1", raw / "P2")
    (raw / "P2" / "P1_t2.nii.gz").unlink()
    shutil.copytree(raw / "P1", raw / "P3")
    shutil.copy(raw / "P1" / "P1_t1ce.nii.gz", raw / "P3" / "other_t1ce.nii.gz")
    shutil.copytree(raw / "P1", raw / "P4")
    (raw / "P4" / "P1_flair.nii.gz").write_bytes(b"")
    (raw / "P5").mkdir()
    shutil.copytree(raw / "P1", raw / "P6")
    save(Scan("x", np.full(SHAPE, 7, np.int16), AFFINE), raw / "P6" / "P1_t2.nii.gz")
    left_out = run(raw, tmp_path / "out")
    sentences = dict(zip("P2 P3 P4 P5 P6".split(), map(str, left_out), strict=True))
    assert [path.parent.name for path in sorted((tmp_path / "out").glob(f"*/{RECORD}"))] == ["P1"]
    assert all(text.startswith(name) for name, text in sentences.items())
    assert "no series that is certainly T2" in sentences["P2"] and "may all be T1ce" in sentences["P3"]
    assert "has the same value everywhere" in sentences["P6"]
    assert "is empty" in sentences["P4"] and "neither DICOM files nor" in sentences["P5"]
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stop:
        finish(left_out)
    assert stop.value.code == 1 and all(text in caplog.text for text in sentences.values())


def test_if_nothing_can_be_prepared_the_run_stops_with_the_reason(raw, quick, tmp_path):
    (raw / "P1" / "P1_t2.nii.gz").unlink()
    with pytest.raises(InputError, match="No patient can be prepared; P1: it has no series that is certainly T2"):
        run(raw, tmp_path / "out")


def test_prepared_cases_are_not_written_between_the_raw_scans(raw, quick):
    for folder in (raw, raw / "prepared", ""):
        with pytest.raises(InputError, match="must be a folder outside scans_dir"):
            run(raw, folder)


def test_scans_are_prepared_for_cohorts_with_a_t1ce_alone_and_by_one_process(raw, monkeypatch, tmp_path):
    suffixes = {"T1": ("_t1",), "T2": ("_t2",), "label": ("_seg",)}
    for cohort, fault in (
        (COHORTS["msd"], "cohort msd has 4-D files; prepare scans for one with a file per modality"),
        (replace(COHORT, suffixes=suffixes), "cohort brats2021 has no T1ce, to which the other scans are registered"),
    ):
        with pytest.raises(InputError, match=fault):
            patients_to_prepare(str(raw), str(tmp_path / "out"), cohort)
    monkeypatch.setattr(prepare, "processes", lambda: 2)
    with pytest.raises(InputError, match="prepared by one process, not by 2; .* `run inferring`"):
        patients_to_prepare(str(raw), str(tmp_path / "out"), COHORT)


def test_a_copied_scan_is_named_by_whether_it_is_compressed_also_in_upper_case(tmp_path):
    for name, copy in (("a.NII.GZ", "x_t1.nii.gz"), ("b.NII", "y_t1.nii")):
        (tmp_path / name).write_text(name)
        prepare.copy_scan(tmp_path / name, tmp_path / f"{copy[0]}_t1.nii.gz")
        assert (tmp_path / copy).read_text() == name


def test_a_case_in_the_form_of_brats_passes_untouched(quick, tmp_path):
    data = np.zeros((240, 240, 155), np.int16)
    data[60:160, 60:160, 20:120] = 7  # 1000 ml
    for suffix in ("t1", "t1ce", "t2", "flair"):
        save(Scan("x", data, np.diag([-1.0, -1, 1, 1])), tmp_path / "raw" / "B1" / f"B1_{suffix}.nii.gz")
    run(tmp_path / "raw", tmp_path / "out")
    for path in (tmp_path / "raw" / "B1").iterdir():
        assert (tmp_path / "out" / "B1" / path.name).read_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "out" / "B1" / RECORD).read_text())["motions"]["T2"] == np.eye(4).tolist()
    assert not is_prepared({"T1": Scan("x", data + 1 + np.arange(155, dtype=np.int16), np.eye(4))})
    scan = Scan("x", data, np.eye(4))
    data[40:180, 40:180, 5:145] = 1  # 2744 ml: the skull in air that is 0
    assert not is_prepared({"T1": scan}) and not is_prepared({"T1": replace(scan, data=np.stack([data] * 2, -1))})


def test_a_registration_that_failed_is_refused(monkeypatch):
    scans = {"T1ce": head(**TISSUE["T1ce"]), "T2": head(**TISSUE["T2"])}
    monkeypatch.setattr(prepare, "register", lambda fixed, moving: np.eye(4))
    assert register_all(scans, ATLAS, same=False).keys() == scans.keys()
    swapped = {**scans, "T2": replace(scans["T2"], affine=np.diag([-1.0, 1, 1, 1]) @ AFFINE)}
    with pytest.raises(CaseError, match="registration of T2 failed .it fits T1ce better with left and right swapped"):
        register_all(swapped, ATLAS, same=False)
    monkeypatch.setattr(prepare, "register", lambda fixed, moving: motion(shift=(0, 20, 0)))
    with pytest.raises(CaseError, match=r"the registration of T.* failed \(it fits .* better moved by .. mm\)"):
        register_all(scans, ATLAS, same=False)


def test_a_time_point_whose_sides_are_swapped_is_refused(monkeypatch):
    monkeypatch.setattr(prepare, "register", lambda fixed, moving: np.eye(4))
    first, later = replace(ATLAS, path="the T1ce of P1-1"), head(**TISSUE["T1ce"])
    swapped = replace(later, affine=np.diag([-1.0, 1, 1, 1]) @ AFFINE)
    assert register_all({"T1ce": later}, first, same=True)
    with pytest.raises(CaseError, match="T1ce failed .it fits the T1ce of P1-1 better with left and right swapped"):
        register_all({"T1ce": swapped}, first, same=True)


def test_a_scan_first_moves_to_t1ce_and_then_with_it_to_the_atlas(monkeypatch):
    motions = {ATLAS.path: motion((0, 0, 30), (5, 4, 3)), "t1ce": motion((20, 0, 0), (0, 9, 0))}
    monkeypatch.setattr(prepare, "register", lambda fixed, moving: motions[fixed.path])
    monkeypatch.setattr(prepare, "better_place", lambda *_, **__: None)
    scans = {name: Scan(name.lower(), np.zeros((8, 8, 8), np.uint8), np.eye(4)) for name in ("T1ce", "T2")}
    found, point = register_all(scans, ATLAS, same=False), np.array([10, 20, 30, 1])
    assert np.allclose(found["T1ce"] @ point, motions[ATLAS.path] @ point)
    assert np.allclose(found["T2"] @ point, motions[ATLAS.path] @ (motions["t1ce"] @ point))


@pytest.mark.parametrize("lowest", [-5.0, 0.0, 3.0])
def test_every_voxel_of_a_brain_is_written_above_0_and_all_others_as_0(lowest, tmp_path):
    """Splines can take a dark voxel below 0, and 0 would be taken for the background."""
    data, inside = np.full((8, 8, 8), 7.0), np.zeros((8, 8, 8), bool)
    inside[2:6, 2:6, 2:6] = True
    data[2:6, 2:6, 2:6] = lowest + np.arange(64).reshape(4, 4, 4)
    prepare.write_scan(Scan("x", data, np.diag([1.0, 1, 2, 1])), inside, tmp_path / "x.nii.gz")
    image = nib.load(tmp_path / "x.nii.gz")
    written = image.get_fdata()
    assert np.array_equal(written > 0, inside) and np.array_equal(image.affine, np.diag([1, 1, 2, 1]))
    assert np.allclose(written[inside] - written[inside].min(), np.arange(64), atol=1e-4)


@needs("itk-elastix")
def test_all_modalities_are_registered_to_the_atlas_through_t1ce():
    scans = {name: head(motion=pose, **TISSUE[name]) for name, pose in MOTIONS.items()}
    for name, found in register_all(scans, ATLAS, same=False).items():
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
