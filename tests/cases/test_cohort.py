import re

import pytest
import yaml

from tests.conftest import ROOT
from tumour.cases.folder import channel_indices
from tumour.cases.parts import find_cases, never_seen, patients, scans_only, split, that_selected, with_reference
from tumour.errors import InputError

COHORTS = yaml.safe_load((ROOT / "bundles/common/cohorts.yaml").read_text())["cohorts"]
FOUR = ["T1", "T1ce", "T2", "FLAIR"]


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def brats2021(root, *cases, parts=("_t1", "_t1ce", "_t2", "_flair", "_seg"), ending=".nii.gz"):
    for case in cases:
        touch(root / case, *(f"{case}{part}{ending}" for part in parts))


def test_cases_are_found_in_nested_folders_with_either_ending_and_without_litter(tmp_path):
    brats2021(tmp_path / "HGG", "B_2")
    brats2021(tmp_path / "LGG" / "deeper", "B_1", ending=".nii")
    touch(tmp_path / "HGG" / "B_2", "._B_2_t1.nii.gz", "notes.txt", "B_2_mask.nii.gz")
    cases, notes = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert [case["case"] for case in cases] == ["B_1", "B_2"] and notes == []
    assert [path.rsplit("B_2_", 1)[1] for path in cases[1]["image"]] == [
        f"{suffix}.nii.gz" for suffix in ("t1", "t1ce", "t2", "flair")
    ]
    assert cases[0]["label"].endswith("B_1_seg.nii")


def test_modalities_come_in_the_order_asked_for(tmp_path):
    brats2021(tmp_path, "B_1")
    cases, _ = find_cases(str(tmp_path), COHORTS["brats2021"], ["FLAIR", "T1"])
    assert [path.rsplit("_", 1)[1] for path in cases[0]["image"]] == ["flair.nii.gz", "t1.nii.gz"]
    assert channel_indices(COHORTS["brats2021"], ["FLAIR", "T1"]) == [0, 1]
    assert channel_indices(COHORTS["msd"], FOUR) == [1, 2, 3, 0]


def test_case_355_of_2020_keeps_its_oddly_named_label(tmp_path):
    case = "BraTS20_Training_355"
    brats2021(tmp_path, case, parts=("_t1", "_t1ce", "_t2", "_flair"))
    touch(tmp_path / case, "W39_1998.09.19_Segm.nii")
    cases, _ = find_cases(str(tmp_path), COHORTS["brats2020"], FOUR)
    assert len(cases) == 1 and cases[0]["label"].endswith("W39_1998.09.19_Segm.nii")


def test_a_case_without_a_modality_is_left_out_and_named_with_the_mend(tmp_path):
    brats2021(tmp_path, "B_1")
    brats2021(tmp_path, "B_2", parts=("_t1", "_t2", "_flair", "_seg"))
    cases, notes = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert [case["case"] for case in cases] == ["B_1"]
    assert len(notes) == 1 and re.match(r"B_2: left out, B_2_t1ce\.nii\.gz is not there; add it", notes[0])
    assert len(find_cases(str(tmp_path), COHORTS["brats2021"], ["T1", "T2"])[0]) == 2


def test_the_same_file_twice_is_told_and_the_first_is_used(tmp_path, caplog):
    brats2021(tmp_path / "a", "B_1")
    brats2021(tmp_path / "b", "B_1", parts=("_t1",))
    cases, notes = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert len(cases) == 1 and "/a/" in cases[0]["image"][0] and notes == []
    assert "is a second T1 beside" in caplog.text


@pytest.mark.parametrize(
    ("cohort", "case", "patient"),
    [
        ("brats2018", "Brats18_CBICA_AAA_1", "Brats18_CBICA_AAA"),
        ("brats2021", "BraTS2021_00012", "BraTS2021_00012"),
        ("brats2023_gli", "BraTS-GLI-00005-001", "BraTS-GLI-00005"),
        ("brats2024_met", "BraTS-MET-00110-000", "BraTS-MET-00110"),
    ],
)
def test_a_case_knows_its_patient(tmp_path, cohort, case, patient):
    brats2021(tmp_path, case, parts=COHORTS[cohort]["files"].values())
    assert find_cases(str(tmp_path), COHORTS[cohort], FOUR)[0][0]["patient"] == patient


def test_msd_cases_are_the_files_of_its_image_folders(tmp_path):
    touch(tmp_path / "imagesTr", "BRATS_001.nii.gz", "BRATS_002.nii.gz", "._BRATS_001.nii.gz")
    touch(tmp_path / "labelsTr", "BRATS_001.nii.gz")
    cases, _ = find_cases(str(tmp_path), COHORTS["msd"], FOUR)
    assert [("label" in case, case["case"]) for case in cases] == [(True, "BRATS_001"), (False, "BRATS_002")]


@pytest.mark.parametrize("cohort", list(COHORTS))
def test_a_wrong_folder_is_told_in_one_sentence(tmp_path, cohort):
    with pytest.raises(InputError, match="is not a folder; name the folder that holds the cases"):
        find_cases(str(tmp_path / "nowhere"), COHORTS[cohort], FOUR)
    with pytest.raises(InputError, match="No case with .* check dataset_dir and cohort"):
        find_cases(str(tmp_path), COHORTS[cohort], FOUR)
    with pytest.raises(InputError, match="must be one or more of"):
        find_cases(str(tmp_path), COHORTS[cohort], ["T1", "T3"])


def people(count, scans=1):
    return [{"case": f"p{i:03}-{j}", "patient": f"p{i:03}", "label": "x"} for i in range(count) for j in range(scans)]


def test_items_of_a_client_belong_to_the_patient_that_their_file_names():
    items = [{"image": "a/BraTS-GLI-00005-100.nii.gz"}, {"image": ["b/BraTS-GLI-00007-000-t1n.nii", "b/x.nii"]}]
    assert patients({"train": items}, COHORTS["brats2023_gli"])["train"] == ["BraTS-GLI-00005", "BraTS-GLI-00007"]


@pytest.mark.parametrize("fold", range(5))
def test_no_patient_stands_in_two_parts_and_none_is_lost(fold):
    parts = split(people(53, scans=3), fold, 0.2, seed=0)
    named = patients(parts)
    together = [patient for part in named.values() for patient in part]
    assert len(together) == len(set(together)) == 53
    assert sum(map(len, parts.values())) == 159
    assert len(named["test"]) == 11 and 8 <= len(named["validate"]) <= 9


def test_every_patient_outside_the_test_share_validates_in_exactly_one_fold():
    parts = [patients(split(people(53), fold, 0.2, seed=0)) for fold in range(5)]
    assert len({tuple(part["test"]) for part in parts}) == 1
    validated = [patient for part in parts for patient in part["validate"]]
    assert len(validated) == len(set(validated)) == 42


def test_the_split_hangs_on_the_seed_and_on_no_order_of_files():
    forward, backward = (patients(split(cases, 0, 0.2, seed=0)) for cases in (people(30), people(30)[::-1]))
    assert forward == backward
    assert forward != patients(split(people(30), 0, 0.2, seed=1))


def test_sixteen_patients_give_ten_three_and_three():
    assert {name: len(part) for name, part in split(people(16), 0, 0.2, 0).items()} == {
        "train": 10,
        "validate": 3,
        "test": 3,
    }


@pytest.mark.parametrize(("fold", "share"), [(5, 0.2), (-1, 0.2), (0, 1.5)])
def test_a_wrong_fold_or_share_is_told(fold, share):
    with pytest.raises(InputError, match="it must"):
        split(people(10), fold, share, 0)


def test_cases_without_labels_cannot_be_split_and_labels_can_be_renamed_or_left():
    with pytest.raises(InputError, match="None of the cases has a label"):
        split(scans_only(people(10)), 0, 0.2, 0)
    assert with_reference(people(1)) == [{"case": "p000-0", "patient": "p000", "reference": "x"}]


def test_patients_that_trained_or_selected_the_model_are_never_scored(tmp_path):
    record = tmp_path / "patients.json"
    assert len(never_seen(people(4), str(record))) == 4
    record.write_text('{"train": ["p000"], "validate": ["p002"], "test": []}')
    assert [case["patient"] for case in never_seen(people(4), str(record))] == ["p001", "p003"]
    with pytest.raises(InputError, match="All 1 cases trained or selected the model"):
        never_seen(people(1), str(record))
    with pytest.raises(InputError, match="The test share holds no patient"):
        never_seen([], str(record))


def test_only_patients_that_selected_the_model_are_fitted_on(tmp_path):
    record = tmp_path / "patients.json"
    with pytest.raises(InputError, match="train first"):
        that_selected(people(4), str(record))
    record.write_text('{"train": ["p000"], "validate": ["p002", "p003"], "test": ["p001"]}')
    cases = people(3, scans=2) + scans_only([*people(4)[3:]])
    assert [case["case"] for case in that_selected(cases, str(record))] == ["p002-0", "p002-1"]
    with pytest.raises(InputError, match="None of the patients that selected the model"):
        that_selected(people(2), str(record))
