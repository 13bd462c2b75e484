"""Every fault that a download can have is found and reported with case, file and fix, and the other cases are used."""

import json
import re
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tumour.cases.case import Case, Cases
from tumour.cases.find import find_cases
from tumour.cases.parts import Parts
from tumour.checks.case import CaseCheck, Finding
from tumour.checks.label import look
from tumour.checks.usable import UsableParts, examine
from tumour.errors import InputError
from tumour.scans.grid import Scan, digest

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, REAL, run, succeed
from tools.check import check
from tools.command_line import command_line
from tools.patients.faults import KINDS, plant
from tools.patients.synthetic import make_patients

BAD, FILE = "BraTS2021_00003", "'{case}_t1ce.nii.gz'"
# the message about each fault, with the fix
UNUSABLE = {
    "absent": "_t1ce.nii.gz is missing; add it",
    "empty": "is empty; download it again",
    "half": "is incomplete or damaged .*; download it again",
    "flipped_byte": "does not match its checksum.*; download it again",
    "web_page": "is a web page, not a scan; log in and download it again",
    "lfs_pointer": "is a Git LFS pointer.*; fetch it with 'git lfs pull'",
    "annex_pointer": "is a git-annex pointer.*; fetch it with 'git annex get'",
    "zeros": "only zero bytes.*; download it again",
    "text": "not a NIfTI file.*; download it again",
    "not_compressed": r"is not compressed, but its name ends in \.gz; rename it to '.*_t1ce\.nii'",
    "compressed": r"is compressed, but its name does not end in \.gz; rename it to '.*_t1ce\.nii\.gz'",
    "few_voxels": "fewer voxels than its header states.*; download it again",
    "nan": "not finite; export it again",
    "infinite": "not finite; export it again",
    "overflow": r"its largest value is .*, not from 1e-12 to 1e\+?12.*; check its scl_slope, or export it again",
    "constant": "every voxel of its T1ce is 0; export it again",
    "negative": "no voxel of its T1ce is brighter than the background, 0; check its scl_slope, or export it again",
    "four_axes": r"has the shape \(\d+, \d+, \d+, 2\), not three axes; export it again",
    "one_slice": "which is not a volume; export the complete series",
    "complex": "colours or complex numbers.*; export it again",
    "wrong_modality": "has the same voxels for T1ce and T1; restore it",
    "shape": "has the shape .*; resample them to one grid",
    "orientation": "has the orientation .*; resample them to one grid",
    "spacing": "has the spacing .*; resample them to one grid",
    "moved": r"is shifted or rotated by up to 5\.0 mm relative to .*; resample them to one grid",
    "singular": "its affine is singular.*; export it again",
    "elsewhere": "the brains in its .* differ .*; register them",
    "label_value": r"_seg\.nii\.gz' contains 9; brats2021 has \[0, 1, 2, 4\]: restore the label",
    "label_fraction": r"_seg\.nii\.gz' contains 0\.5; .*restore the label",
    "label_shape": r"_seg\.nii\.gz' has the shape .*; resample",
    "label_moved": r"_seg\.nii\.gz' is shifted or rotated by up to 5\.0 mm relative to .*; resample",
    "label_affine": r"_seg\.nii\.gz' has lost its affine .*copy that affine with nibabel",
    "label_elsewhere": "is outside the brain; check that the label is from this patient",
    "label_four_axes": "not three axes; export one label map",
    "label_half": r"_seg\.nii\.gz' is incomplete or damaged .*; download it again",
}
NOTES = {
    "cut_field": "the brains in its .* differ .*; check that they are registered",
    "skull": "the background of its T1ce is not 0; skull-strip it",
    "background": "-0.[0-9]+ is taken for the background of its T1ce$",
    "outlier": r"its T1ce goes from 0 to 3e\+10, though 99% of it is below [0-9.]+; check it",
    "pixdim": r"has the spacing \[1\.0, 1\.0, 1\.0\], its pixdim \[2\.0, 2\.0, 2\.0\]; the affine is used",
    "no_codes": "check that left and right are not swapped",
    "label_outside": "is outside the brain; check the label",
    "label_empty": "contains no tumour; check that this is intended",
    "twin": "is also a T1ce of this case; remove one",
    "duplicate": "the voxels of its T1, T1ce, T2, FLAIR are also in BraTS2021_0000X; keep one of these cases",
}


@pytest.fixture
def data(patients, tmp_path):
    """A copy of six patients that a test may damage."""
    return shutil.copytree(patients("brats2021"), tmp_path / "data")


def files_of(folder, case=BAD):
    suffixes = COHORTS["brats2021"].suffixes
    return {name: folder / case / f"{case}{given[0]}.nii.gz" for name, given in suffixes.items()}


def checked(folder, cohort="brats2021", **options):
    status = check(cohort, str(folder), str(folder.parent / "out"), **options)
    return status, json.loads((folder.parent / "out" / "check.json").read_text())


def test_every_fault_that_can_be_created_is_expected_here():
    assert set(UNUSABLE) | set(NOTES) == set(KINDS) and len(KINDS) >= 30


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_fault_makes_only_its_case_unusable_and_is_reported_with_the_file_and_the_fix(kind, data):
    plant(kind, files_of(data))
    status, told = checked(data)
    assert status == 2 and told["counts"] == {"good": 5, "note": 0, "unusable": 1}
    rows = pd.read_csv(data.parent / "out" / "check.csv").set_index("case")
    assert rows.loc[BAD, "status"] == "unusable" and (rows.drop(BAD)["status"] == "good").all()
    assert re.search(UNUSABLE[kind], rows.loc[BAD, "why"] + "."), rows.loc[BAD, "why"]
    assert kind == "elsewhere" or re.search(f"{BAD}_(t1ce|t2|flair|seg)", rows.loc[BAD, "why"])


@pytest.mark.parametrize("kind", ["absent", "half", "label_value"])
def test_the_other_cases_are_used_and_strict_stops(kind, data):
    plant(kind, files_of(data))
    own = COHORTS["brats2021"]

    def usable(strict):
        parts = Parts(str(data), own, FOUR, COHORTS, fold=0, test_share=0.2, seed=0)
        return UsableParts(parts, CaseCheck(own, COHORTS, FOUR), str(data.parent / "out"), strict)

    parts = usable(strict=False)
    assert not parts.left_out and not parts.test  # no file is read before a part is needed
    used = [case.name for part in (parts.train, parts.validate, parts.test) for case in part]
    assert sorted(used) == [f"BraTS2021_0000{index}" for index in (0, 1, 2, 4, 5)]
    assert [each.case for each in parts.left_out] == [BAD]
    with pytest.raises(InputError, match=rf"strict is true, but 1 case\(s\) cannot be used:\n  {BAD}: "):
        assert usable(strict=True).train


def test_a_case_and_its_copy_in_another_part_of_the_data_are_named(data, caplog):
    plant("duplicate", files_of(data))
    own, warned = COHORTS["brats2021"], set()
    for seed in range(12):
        caplog.clear()
        parts = Parts(str(data), own, FOUR, COHORTS, fold=0, test_share=0.2, seed=seed)
        where = {case.name: name for name, part in parts.by_name.items() for case in part}
        assert UsableParts(parts, CaseCheck(own, COHORTS, FOUR), str(data.parent / "out"), strict=False).train
        apart, warning = where[BAD] != where[f"{BAD[:-1]}X"], "makes scores too good" in caplog.text
        assert apart == warning and (not warning or f"{BAD} ({where[BAD]}) and {BAD[:-1]}X" in caplog.text)
        warned.add(warning)
    assert warned == {True, False}


@pytest.mark.parametrize("kind", NOTES)
def test_a_doubtful_case_gets_a_note_and_is_used(kind, data):
    plant(kind, files_of(data))
    status, told = checked(data)
    assert status == 1 and told["counts"]["unusable"] == 0
    noted = {
        case["case"]: "; ".join(case["notes"] + case["across"]) for case in told["cases"] if case["status"] == "note"
    }
    assert BAD in noted and len(noted) == (2 if kind == "duplicate" else 1)
    assert re.search(NOTES[kind], noted[BAD]), noted[BAD]


@pytest.mark.parametrize("cohort", COHORTS)
def test_unchanged_patients_are_good_in_every_cohort(cohort, tmp_path):
    make_patients(tmp_path / "data", cases=3, size=32, cohort=cohort, spacing=(1, 1, 1.5))
    status, told = checked(tmp_path / "data", cohort)
    assert status == 0 and told["counts"] == {"good": 3, "note": 0, "unusable": 0} and told["strays"] == []
    assert told["regions"]["WT"]["cases"] == 3 and told["regions"]["ET"]["without"] == 1
    assert told["regions"].keys() == COHORTS[cohort].regions.keys()


def test_volumes_and_lesions_are_those_of_the_label(data):
    path = files_of(data)["label"]
    image = nib.load(path)
    label = np.zeros(image.shape, np.uint8)
    label[18:22, 18:22, 18:22] = 1  # touches the next one only at a corner: one lesion
    label[22:24, 22:24, 22:24] = 4
    label[10:12, 20:22, 20:22] = 2
    nib.save(nib.Nifti1Image(label, image.affine), path)
    _, told = checked(data)
    facts = next(case["facts"] for case in told["cases"] if case["case"] == BAD)
    assert facts["ml"] == {"necrotic": 0.064, "oedema": 0.008, "enhancing": 0.008} and facts["lesions"] == 2
    # of the 64 necrotic voxels 56 are at the border, and all 8 of each other class
    assert facts["border"] == {"necrotic": 0.778, "oedema": 0.111, "enhancing": 0.111}


def test_a_tumour_is_inside_where_any_modality_shows_the_brain():
    label, shown = np.zeros((8, 8, 8), np.uint8), np.zeros((8, 8, 8), bool)
    label[2:6, 2:6, 2:6], shown[:4] = 1, True
    found = []
    for brains in ({"T1": shown, "FLAIR": ~shown}, {"T1": shown}):
        finding = Finding("a", "a")
        look(finding, Scan("label.nii", label, np.eye(4)), brains, COHORTS["brats2021"], COHORTS)
        found.append(finding.faults + finding.notes)
    assert found == [[], ["50% of the tumour in 'label.nii' is outside the brain; check the label"]]


def test_strays_time_points_and_unlabelled_cases_are_listed_and_hidden_files_are_not(tmp_path, capsys):
    data = tmp_path / "data"
    make_patients(data, cases=3, size=32, cohort="brats2023_gli")
    first, second, third = sorted(data.iterdir())
    later = data / "BraTS-GLI-00000-001"
    second.rename(later)
    for path in later.iterdir():
        path.rename(later / path.name.replace(second.name, later.name))
    (third / f"{third.name}-seg.nii.gz").unlink()
    (third / "atlas.nii.gz").touch()
    (third / f"._{third.name}-t1n.nii.gz").touch()
    status, told = checked(data, "brats2023_gli")
    assert status == 0 and told["strays"] == [str(third / "atlas.nii.gz")]
    assert told["several_time_points"] == {"BraTS-GLI-00000": [first.name, later.name]}
    printed = capsys.readouterr().out
    assert "Cases without a label: 1" in printed and "several time points: 1" in printed


def test_scans_that_differ_in_one_voxel_are_not_copies():
    zeros = np.zeros((8, 8, 8), np.int16)
    digests = {digest(zeros)}
    for place in np.ndindex(zeros.shape):
        changed = zeros.copy(order="F")
        changed[place] = 1
        digests.add(digest(changed))
    assert len(digests) == 1 + zeros.size


# Labels of another cohort
def relabelled(folder, change):
    for path in folder.rglob("*seg.nii.gz"):
        image = nib.load(path)
        values = np.array(image.dataobj)
        nib.save(nib.Nifti1Image(np.array(change, np.uint8)[values], image.affine), path)


@pytest.mark.parametrize(
    ("stored", "read_as", "change", "named"),
    [
        (
            "brats2021",
            "brats2021",
            [0, 1, 2, 0, 3],
            "contain 3 .*the values match brats2023_gli, .*: give --cohorts::brats2021::label_values",
        ),
        (
            "brats2023_gli",
            "brats2023_gli",
            [0, 1, 2, 4],
            "contain 4 .*match brats2024_gli, brats2024_ped, brats2024_met_rc: give one of these as --cohort",
        ),
        (
            "brats2024_gli",
            "brats2023_gli",
            [0, 1, 2, 3, 4],
            "contain 4 .*match brats2024_gli, brats2024_ped, brats2024_met_rc: give one of these as --cohort",
        ),
        (
            "brats2024_met_rc",
            "brats2024_met",
            [0, 1, 2, 3, 4],
            "contain 4 .*match brats2024_gli, brats2024_ped, brats2024_met_rc: give one of these as --cohort",
        ),
        ("brats2021", "brats2021", [0, 1, 2, 3, 4], None),
        (
            "brats2021",
            "brats2021",
            [0, 2, 1, 0, 4],
            r"class necrotic .* surrounds .*label_values '\[0, 2, 1, 4\]'",
        ),
        (
            "brats2023_gli",
            "brats2023_gli",
            [0, 2, 1, 3],
            "surrounds its class oedema; .*the values match msd: give",
        ),
    ],
)
def test_labels_that_contradict_the_cohort_stop_the_run_and_the_right_cohort_is_named(
    stored, read_as, change, named, tmp_path
):
    make_patients(tmp_path / "data", cases=7, size=32, cohort=stored)
    relabelled(tmp_path / "data", change)
    if named is None:
        assert checked(tmp_path / "data", read_as)[0] == 0
        return
    with pytest.raises(InputError, match=named):
        checked(tmp_path / "data", read_as)


def test_a_dataset_json_with_another_order_stops_the_run_with_its_values(tmp_path):
    data = tmp_path / "data"
    make_patients(data, cases=2, size=32, cohort="msd")
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    (data / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert checked(data, "msd")[0] == 0
    labels |= {"1": "necrosis", "2": "edema"}
    (data / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(
        InputError, match=r"states that 1 is necrotic.*; msd has \[0, 2, 1, 3\], but the values match brats2023_gli, "
    ):
        checked(data, "msd")
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3}}))  # nnU-Net
    with pytest.raises(InputError, match="that 1 is necrotic, 2 is oedema, 3 is enhancing, which contradicts msd"):
        checked(data, "msd")


def test_a_case_that_crashes_the_check_is_reported_and_left_out(data, monkeypatch):
    def broken(path):
        raise MemoryError("no room") if BAD in path else InputError("x")

    monkeypatch.setattr("tumour.checks.case.read_scan", broken)
    _, told = checked(data)
    bad = next(case for case in told["cases"] if case["case"] == BAD)
    assert bad["faults"] == ["it could not be checked (MemoryError: no room); check its files"]


def test_files_named_as_in_another_cohort_are_reported_with_its_name(patients):
    with pytest.raises(InputError, match="named as in brats2023_gli or .*: give that as --cohort"):
        find_cases(str(patients("brats2023_gli")), COHORTS["brats2021"], FOUR, COHORTS)


# The record, the command and the runs
def test_unchanged_cases_are_not_read_again(data, monkeypatch):
    checked(data)
    checks = CaseCheck(COHORTS["brats2021"], COHORTS, FOUR, str(data.parent / "out" / "check.json"))
    cases = find_cases(str(data), COHORTS["brats2021"], FOUR).complete
    read = []
    monkeypatch.setattr("tumour.checks.case.read_scan", lambda path: read.append(path))
    assert all(finding.status == "good" for finding in examine(cases, checks)) and read == []
    plant("empty", files_of(data))
    assert [finding.case for finding in examine(cases, checks) if finding.faults] == [BAD]
    assert read and all(BAD in path for path in read)


def test_a_case_that_is_called_otherwise_than_in_an_earlier_check_goes_by_its_new_name(data):
    checked(data)
    checks = CaseCheck(COHORTS["brats2021"], COHORTS, FOUR, str(data.parent / "out" / "check.json"))
    case = find_cases(str(data), COHORTS["brats2021"], FOUR).complete[0]
    finding = checks(replace(case, name="site_a", patient="a"))  # as if another folder had a case of its name
    assert checks.stamp(case.files) in checks.known and (finding.case, finding.patient) == ("site_a", "a")


def test_the_command_prints_a_table_and_its_exit_status_is_that_of_the_worst_case(data, capsys):
    arguments = [f"--dataset_dir={data}", f"--output={data.parent / 'out'}"]
    for kind, expected in ((None, 0), ("cut_field", 1), ("half", 2)):
        if kind:
            plant(kind, files_of(data))
        with pytest.raises(SystemExit) as stop:
            command_line(check, "tools check", ["--cohort=brats2021", *arguments])
        printed = capsys.readouterr().out
        assert stop.value.code == expected and re.search(rf"good +{6 if not kind else 5}\n", printed)
        assert (f"The exit status is {expected}: " in printed) == bool(kind)
    assert f"{BAD}: '" in printed and "6 cases, written to" in printed
    with pytest.raises(SystemExit) as stop:
        command_line(check, "tools check", ["--cohort=brats1999", *arguments])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: cohort must be one of")


def test_a_training_leaves_out_unusable_cases_and_strict_stops_it(data, tmp_path):
    plant("half", files_of(data))
    done = run("training", BUNDLES[0], tmp_path, "brats2021", data, epochs=1, strict=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and f"{BAD}: '" in done.stderr
    printed = succeed("training", BUNDLES[0], tmp_path, "brats2021", data, epochs=1, cache="none")
    assert f"left out, {BAD}: '" in printed and "5 of 6 cases used; see '" in printed
    record = json.loads((tmp_path / "models" / "patients.json").read_text())
    assert BAD not in record["train"] + record["validate"] + record["test"]
    (told,) = json.loads((tmp_path / "results" / "runs" / "training.json").read_text())["left_out"]  # for the report
    assert told["case"] == BAD and told["why"].startswith("'")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real patients of ../shared/data are not on this machine")
@pytest.mark.parametrize(
    ("folder", "cohort", "cases", "noted"),
    [
        ("BraTS2018", "brats2018", 30, ["Brats18_2013_20_1"]),
        ("BraTS2021", "brats2021", 6, []),
        ("BraTS2023-GLI", "brats2023_gli", 1, []),
        ("BraTS-MET", "brats2024_met", 1, []),
    ],
)
def test_real_patients_raise_no_false_alarm(folder, cohort, cases, noted, tmp_path):
    assert check(cohort, str(REAL / folder), str(tmp_path)) == (1 if noted else 0)
    rows = pd.read_csv(tmp_path / "check.csv")
    assert len(rows) == cases and rows.loc[rows["status"] == "note", "case"].tolist() == noted


def test_the_ranges_of_a_training_are_those_of_its_usable_training_cases(tmp_path, monkeypatch):
    check = CaseCheck(COHORTS["brats2021"], COHORTS, FOUR)
    brains = {"a": 1000, "b": 1100, "broken": 10, "held out": 1500}
    monkeypatch.setattr(
        CaseCheck,
        "__call__",
        lambda _, case: Finding(
            case.name, case.name, ["x"] * (case.name == "broken"), facts={"brain_ml": brains[case.name]}
        ),
    )
    cases = {name: Case(name, name, ("x.nii",), ("T1",)) for name in brains}
    held_out = cases.pop("held out")
    parts = Parts(str(tmp_path), check.cohort, FOUR, COHORTS, fold=0, test_share=0.2, seed=0)
    parts.found, parts.by_name = Cases(), {"train": [*cases.values()], "validate": [held_out], "test": []}
    usable = UsableParts(parts, check, str(tmp_path / "out"), strict=False)
    assert [case.name for case in usable.train] == ["a", "b"] and usable.validate == [held_out]
    assert usable.seen() == {"brain volume, ml": [1000, 1100]}


def test_labels_without_any_tumour_are_not_trained_on_and_an_absent_class_is_mentioned(caplog):
    cohort = COHORTS["brats2021"]
    usable = UsableParts(None, CaseCheck(cohort, COHORTS, FOUR), "out", strict=False)

    def of(*volumes):
        return [Finding("a", "a", facts={"ml": dict(zip(cohort.classes[1:], ml, strict=True))}) for ml in volumes]

    with pytest.raises(InputError, match="None of the 2 labels to train on contains a tumour; check"):
        usable._require_tumours(of((0, 0, 0), (0, 0, 0)))
    usable._require_tumours(of((0, 1, 0), (2, 0, 0)))
    assert "none of the 2 labels to train on contains enhancing." in caplog.text
    caplog.clear()
    usable._require_tumours(of((0, 1, 0), (2, 0, 3)))
    usable._require_tumours([])
    assert not caplog.text
