"""Cases are found by the names of their files, have unique names, and are split by patient."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from tumour.cases.case import Case, unique_names
from tumour.cases.find import cases_to_use, find_cases, find_scans
from tumour.cases.parts import Parts, not_seen, patients, split, used_for_selection
from tumour.cases.series import series_cases
from tumour.checks.case import CaseCheck
from tumour.checks.usable import UsableParts
from tumour.cohort import Cohort
from tumour.errors import InputError, OptionError
from tumour.scores.challenges import CHALLENGES

from tests.cohorts import COHORTS, FOUR, people
from tests.conftest import ROOT
from tools.cohorts import cohort_named
from tools.score import label_files

SERIES = yaml.safe_load((ROOT / "bundles/common/cohorts.yaml").read_text())["series"]
OWN = COHORTS["brats2021"]


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def brats2021(root, *cases, parts=("_t1", "_t1ce", "_t2", "_flair", "_seg"), ending=".nii.gz"):
    for case in cases:
        touch(root / case, *(f"{case}{part}{ending}" for part in parts))


def test_cases_are_found_in_nested_folders_with_either_ending_and_hidden_files_are_ignored(tmp_path):
    brats2021(tmp_path / "HGG", "B_2")
    brats2021(tmp_path / "LGG" / "deeper", "B_1", ending=".nii")
    touch(tmp_path / "HGG" / "B_2", "._B_2_t1.nii.gz", "notes.txt", "B_2_mask.nii.gz")
    found = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert [case.name for case in found.complete] == ["B_1", "B_2"] and not found.left_out
    assert [path.rsplit("B_2_", 1)[1] for path in found.complete[1].images] == [
        f"{suffix}.nii.gz" for suffix in ("t1", "t1ce", "t2", "flair")
    ]
    assert found.complete[0].label.endswith("B_1_seg.nii")


def test_the_ending_of_a_file_may_be_in_upper_case(tmp_path):
    brats2021(tmp_path, "B_1", ending=".NII.GZ")
    brats2021(tmp_path, "B_2", ending=".nii.Gz")
    brats2021(tmp_path, "B_3", ending=".NII")
    found = find_cases(str(tmp_path), OWN, FOUR)
    assert [case.name for case in found.complete] == ["B_1", "B_2", "B_3"] and all(c.label for c in found.complete)
    assert label_files(str(tmp_path), OWN, bare=False).keys() == {"B_1", "B_2", "B_3"}
    assert OWN.case_of("B_1_t1.NII.GZ") == "B_1"


def test_files_that_belong_to_no_case_are_mentioned_next_to_those_that_do(tmp_path, caplog):
    brats2021(tmp_path, "B_1")
    touch(tmp_path / "B_2", *(f"B_2_{kind}.nii.gz" for kind in ("T1", "T1CE", "T2", "FLAIR")))
    for look in (
        lambda: cases_to_use(str(tmp_path), OWN, FOUR, COHORTS),
        lambda: find_scans(str(tmp_path), OWN, FOUR, COHORTS, SERIES, 0),
    ):
        caplog.clear()
        assert [case.name for case in look().complete] == ["B_1"]
        assert "files that belong to no case: 4, e.g. '" in caplog.text and "B_2_FLAIR.nii.gz'" in caplog.text


def test_cases_that_only_their_folders_name_are_all_named_after_as_many(tmp_path):
    weeks = ("P1/week-0", "P2/week-0", "P2/week-9")
    for week in weeks:
        touch(tmp_path / week, *(f"{kind}.nii.gz" for kind in ("T1", "CT1", "T2", "FLAIR")))
    kinds = {"T1": ("T1",), "T1ce": ("CT1",), "T2": ("T2",), "FLAIR": ("FLAIR",)}
    cohort = Cohort("follow_up", ("background",), {}, (0,), patient="(.+)_week-.+", suffixes=kinds)
    found = find_cases(str(tmp_path), cohort, FOUR).complete
    assert [(case.name, case.patient) for case in found] == [
        ("P1_week-0", "P1"),
        ("P2_week-0", "P2"),
        ("P2_week-9", "P2"),  # else one patient would be two, perhaps in two parts of the data
    ]


def test_a_name_that_cannot_be_a_case_id_leaves_out_its_case_alone(tmp_path):
    brats2021(tmp_path / "data", "B_1", "B\t2", "B" * 240)
    touch(tmp_path / "msd" / "imagesTr", "B_1.nii.gz", "B\t2.nii.gz")
    for kind in FOUR:
        touch(tmp_path / "data" / "C\n3" / kind)
        (tmp_path / "data" / "C\n3" / kind / "1.dcm").write_bytes(bytes(128) + b"DICM")
    for place, cohort in (("data", "brats2021"), ("msd", "msd")):
        found = find_cases(str(tmp_path / place), COHORTS[cohort], FOUR)
        assert [case.name for case in found.complete] == ["B_1"]
        assert {each.case for each in found.left_out} == ({"B" * 240, "B\\t2"} if place == "data" else {"B\\t2"})
        assert all("rename" in each.why for each in found.left_out)
    found = find_scans(str(tmp_path / "data"), OWN, FOUR, COHORTS, SERIES, 0)
    assert [case.name for case in found.complete] == ["B_1"]
    assert sorted(each.case for each in found.left_out) == ["B" * 240, "B\\t2", "C\\n3"]


def test_modalities_come_in_the_order_asked_for(tmp_path):
    brats2021(tmp_path, "B_1")
    (case,) = find_cases(str(tmp_path), COHORTS["brats2021"], ["FLAIR", "T1"]).complete
    assert [path.rsplit("_", 1)[1] for path in case.images] == ["flair.nii.gz", "t1.nii.gz"]
    assert case.modalities == ("FLAIR", "T1")
    assert COHORTS["brats2021"].channel_indices(["FLAIR", "T1"]) == [0, 1]
    assert COHORTS["msd"].channel_indices(FOUR) == [1, 2, 3, 0]


def test_case_355_of_2020_has_its_oddly_named_label(tmp_path):
    case = "BraTS20_Training_355"
    brats2021(tmp_path, case, parts=("_t1", "_t1ce", "_t2", "_flair"))
    touch(tmp_path / case, "W39_1998.09.19_Segm.nii")
    (found,) = find_cases(str(tmp_path), COHORTS["brats2020"], FOUR).complete
    assert found.label.endswith("W39_1998.09.19_Segm.nii")


def test_a_case_without_a_modality_is_left_out_and_the_file_to_add_is_named(tmp_path):
    brats2021(tmp_path, "B_1")
    brats2021(tmp_path, "B_2", parts=("_t1", "_t2", "_flair", "_seg"))
    found = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert [case.name for case in found.complete] == ["B_1"]
    (left_out,) = found.left_out
    assert left_out.case == "B_2" and re.match(r"B_2_t1ce\.nii\.gz is missing; add it", left_out.why)
    assert len(find_cases(str(tmp_path), COHORTS["brats2021"], ["T1", "T2"]).complete) == 2


def test_a_copy_of_a_file_in_another_folder_is_reported_and_not_used(tmp_path, caplog):
    brats2021(tmp_path / "a", "B_1")
    brats2021(tmp_path / "b", "B_1", parts=("_t1",))
    found = cases_to_use(str(tmp_path), COHORTS["brats2021"], FOUR, COHORTS)
    assert [case.name for case in found.complete] == ["B_1"] and not found.left_out
    assert "/a/" in found.complete[0].images[0] and "is also a T1 of this case" in caplog.text


def test_cases_with_the_same_name_in_two_folders_are_two_cases_named_after_their_folders(tmp_path):
    brats2021(tmp_path / "HGG", "c1")
    brats2021(tmp_path / "LGG", "c1", "c2")
    found = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert [case.name for case in found.complete] == ["HGG_c1", "LGG_c1", "c2"]
    assert len({case.patient for case in found.complete}) == 3
    for case in ("p1", "p2"):
        touch(tmp_path / "tool" / case, *(f"brats-space{s}.nii.gz" for s in ("_t1", "_t1ce", "_t2", "_flair")))
    found = find_cases(str(tmp_path / "tool"), COHORTS["brats2021"], FOUR)
    assert [case.name for case in found.complete] == ["p1_brats-space", "p2_brats-space"]


def test_files_of_two_folders_are_never_combined_to_one_case(tmp_path):
    brats2021(tmp_path / "A", "c1", parts=("_t1", "_t1ce", "_flair"))
    brats2021(tmp_path / "B", "c1", parts=("_t2",))
    found = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert not found.complete and [each.case for each in found.left_out] == ["A_c1", "B_c1"]
    with pytest.raises(InputError, match="No case of brats2021 .* is complete; A_c1: c1_t2.nii.gz is missing"):
        cases_to_use(str(tmp_path), COHORTS["brats2021"], FOUR, COHORTS)


@pytest.mark.parametrize(
    ("places", "names"),
    [
        ([("a", "x"), ("a", "y")], ["x", "y"]),
        ([("P1", "2024"), ("P2", "2024"), ("P2", "2025")], ["P1_2024", "P2_2024", "2025"]),
        ([("r", "a", "s", "x"), ("r", "b", "s", "x"), ("r", "b", "t", "x")], ["a_s_x", "b_s_x", "t_x"]),
        ([("c1", "c1"), ("c2", "c2")], ["c1", "c2"]),
        ([("a", "x"), ("x",)], ["a_x", "x"]),
    ],
)
def test_names_become_unique_with_as_few_folders_as_needed(places, names):
    assert unique_names(places) == names


def test_the_cases_of_a_datalist_get_unique_names(tmp_path):
    entries = []
    for folder in ("sub-0", "sub-1"):
        touch(tmp_path / folder, *(f"{kind}.nii.gz" for kind in ("t1", "t1ce", "t2", "flair")))
        entries.append({"image": [f"{folder}/{kind}.nii.gz" for kind in ("flair", "t1ce", "t1", "t2")]})
    path = tmp_path / "list.json"

    def found(**more):
        path.write_text(json.dumps({"training": entries, **more}))
        return find_cases(str(path), COHORTS["brats2021"], FOUR)

    with pytest.raises(InputError, match="the modality of its files is unknown"):
        found()
    cases = found(modality={"0": "FLAIR", "1": "T1ce", "2": "T1", "3": "T2"}).complete
    assert [case.name for case in cases] == ["sub-0_flair", "sub-1_flair"]
    assert [image.rsplit("/", 1)[1] for image in cases[0].images] == [
        f"{k}.nii.gz" for k in ("t1", "t1ce", "t2", "flair")
    ]
    entries[1]["case"] = entries[0]["case"] = "same"
    with pytest.raises(InputError, match="has two cases called same"):
        found(modality={"0": "FLAIR", "1": "T1ce", "2": "T1", "3": "T2"})
    entries[1]["case"] = "../../x"
    with pytest.raises(InputError, match="'../../x' cannot be a case id"):
        found(modality={"0": "FLAIR", "1": "T1ce", "2": "T1", "3": "T2"})


def test_a_datalist_that_joins_files_of_two_patients_is_noted_and_one_file_may_be_listed_twice(tmp_path):
    brats2021(tmp_path, "c1", "c2")

    def entry(*cases, label="c1", **more):
        parts = zip(cases, ("_t1", "_t1ce", "_t2", "_flair"), strict=True)
        images = [str(tmp_path / case / f"{case}{part}.nii.gz") for case, part in parts]
        return {"image": images, "label": f"{label}/{label}_seg.nii.gz", **more}

    shifted = entry("c1", "c1", "c2", "c2", case="images"), entry(*4 * ["c1"], label="c2", case="label")
    again = entry(*4 * ["c1"]), entry(*4 * ["c1"], case="again")
    (tmp_path / "list.JSON").write_text(json.dumps({"training": [*shifted, *again]}))
    found = find_cases(str(tmp_path / "list.JSON"), COHORTS["brats2021"], FOUR)
    assert [case.name for case in found.complete] == ["again", "c1", "images", "label"]
    both = ("its files are named after c1 and c2; check that they are of one case",)
    assert found.unused == {"images": both, "label": both}


def test_a_datalist_with_modalities_in_the_file_names_needs_no_list_of_modalities(tmp_path):
    brats2021(tmp_path, "c1", "c2")
    order = ("_flair", "_t1ce", "_t1", "_t2")  # as in the published list of Swin UNETR
    entries = [{"image": [f"{case}/{case}{part}.nii.gz" for part in order]} for case in ("c1", "c2")]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    cases = find_cases(str(tmp_path / "list.json"), COHORTS["brats2021"], FOUR).complete
    assert [case.name for case in cases] == ["c1", "c2"]
    assert [image.rsplit("c1_", 1)[1] for image in cases[0].images] == [
        f"{k}.nii.gz" for k in ("t1", "t1ce", "t2", "flair")
    ]


def test_scans_of_both_kinds_are_found_and_incomplete_ones_need_modality_dropout(tmp_path):
    brats2021(tmp_path, "B_1")
    brats2021(tmp_path, "B_2", parts=("_t1", "_t2", "_flair"))
    for case, kinds in {"D_1": ("t1", "t1ce", "t2", "flair"), "D_2": ("t1",)}.items():
        for kind in kinds:
            (tmp_path / case / kind).mkdir(parents=True)
            (tmp_path / case / kind / "1.dcm").write_bytes(bytes(128) + b"DICM")
    place = str(tmp_path), COHORTS["brats2021"], FOUR, COHORTS, SERIES
    found = find_scans(*place, 0)
    assert [case.name for case in found.complete] == ["B_1", "D_1"]
    assert [each.case for each in found.left_out] == ["D_2", "B_2"]
    assert all("modality_dropout 0" in each.why for each in found.left_out)
    found = find_scans(*place, 0.3)
    assert [case.name for case in found.complete] == ["B_1", "B_2", "D_1", "D_2"] and not found.left_out
    assert all(case.label is None for case in found.complete)
    assert found.complete[1].modalities == ("T1", "T2", "FLAIR")


@pytest.mark.parametrize("named", [True, False])
def test_a_case_of_a_datalist_that_lacks_a_modality_is_as_one_of_a_folder(named, tmp_path):
    kinds = {"T1": "_t1", "T2": "_t2", "FLAIR": "_flair"}
    brats2021(tmp_path, "c1", parts=tuple(kinds.values()))
    brats2021(tmp_path, "c2")
    entries = [
        {"case": case, "image": [f"{case}/{case}{part}.nii.gz" for part in parts]}
        for case, parts in (("c1", [*kinds.values()]), ("c2", ["_t1", "_t1ce", "_t2", "_flair"]), ("c3", ["_flair"]))
    ]
    brats2021(tmp_path, "c3", parts=("_flair",))
    if not named:
        entries = entries[:1]
        for number, part in enumerate(kinds.values()):
            (tmp_path / "c1" / f"c1{part}.nii.gz").rename(tmp_path / "c1" / f"{number}.nii.gz")
        entries[0]["image"] = [f"c1/{number}.nii.gz" for number in range(3)]
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"modality": dict(enumerate(kinds)), "training": entries}))
    place = str(path), OWN, FOUR, COHORTS, SERIES
    found = find_scans(*place, 0.1)
    assert not found.left_out and {case.name: case.modalities for case in found.complete} == {
        "c1": ("T1", "T2", "FLAIR"),
        **({"c2": tuple(FOUR), "c3": ("FLAIR",)} if named else {}),
    }
    left_out = find_cases(*place[:3]).left_out
    assert str(left_out[0]) == f"c1: it has no T1ce; add it to '{path}' or use fewer modalities."
    whole = find_cases(str(path), OWN, ["FLAIR", "T1"]).complete
    assert [case.name for case in whole] == (["c1", "c2"] if named else ["c1"])


def test_the_modalities_of_a_datalist_are_not_those_of_a_case_with_fewer_files(tmp_path):
    touch(tmp_path, *(f"{number}.nii.gz" for number in range(3)))
    entries = [{"case": "a", "image": [f"{number}.nii.gz" for number in range(3)]}]
    content = {"modality": dict(enumerate(FOUR)), "training": entries}
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="the modality of its files is unknown"):
        find_cases(str(tmp_path / "list.json"), OWN, ["T1"])


def test_linked_folders_are_followed_and_a_loop_ends(tmp_path):
    brats2021(tmp_path / "store", "c1", "c2")
    brats2021(tmp_path / "data", "c3")
    for case in ("c1", "c2"):
        (tmp_path / "data" / case).symlink_to(tmp_path / "store" / case)
    (tmp_path / "data" / "c3" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "c3")
    (tmp_path / "data" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data" / "itself").symlink_to(tmp_path / "data" / "itself")
    found = find_cases(str(tmp_path / "data"), COHORTS["brats2021"], FOUR)
    assert [case.name for case in found.complete] == ["c1", "c2", "c3"]
    assert [each.case for each in found.left_out] == ["gone", "itself"]
    assert "is a link to" in found.left_out[0].why and "which does not exist; restore" in found.left_out[0].why


def test_linked_folders_are_followed_in_segmenting_and_scoring(tmp_path):
    brats2021(tmp_path / "store", "c1", parts=("_seg",))
    (tmp_path / "store" / "D1" / "T1").mkdir(parents=True)
    (tmp_path / "store" / "D1" / "T1" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "data").symlink_to(tmp_path / "store")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "link").symlink_to(tmp_path / "data")
    assert list(label_files(str(tmp_path / "deeper"), COHORTS["brats2021"], bare=False)) == ["c1"]
    (case,) = series_cases(tmp_path / "deeper", SERIES, ["T1"]).complete
    assert case.name == "D1"


def test_a_folder_that_cannot_be_read_is_reported(tmp_path, monkeypatch):
    brats2021(tmp_path, "c1", "c2")
    scandir = os.scandir

    def guarded(folder):  # the tests may run as root, who may read everything
        if str(folder).endswith("c2"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    found = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert [case.name for case in found.complete] == ["c1"]
    assert str(found.left_out[0]).startswith("c2: ") and "cannot be read (Permission denied)" in found.left_out[0].why
    with pytest.raises(InputError, match="c2: .* cannot be read"):
        label_files(str(tmp_path), COHORTS["brats2021"], bare=False)


@pytest.mark.parametrize("cohort", ["brats2021", "msd"])
@pytest.mark.parametrize("labels", [("c1.nii.gz", "c2.nii.gz"), ()])
def test_the_raw_folder_of_nnunet_is_recognised(tmp_path, cohort, labels):
    files = [f"{case}_{channel:04}.nii.gz" for case in ("c1", "c2") for channel in range(4)]
    touch(tmp_path / "imagesTr", *files)
    touch(tmp_path / "labelsTr", *labels)
    with pytest.raises(InputError, match="'imagesTr/c1_0000.nii.gz' is named as in the raw folder of nnU-Net"):
        find_cases(str(tmp_path), COHORTS[cohort], FOUR, COHORTS)


def test_msd_cases_with_four_digits_are_no_channels(tmp_path):
    names = [f"case_{number:04}.nii.gz" for number in range(4)]
    touch(tmp_path / "imagesTr", *names)
    touch(tmp_path / "labelsTr", *names)
    assert len(find_cases(str(tmp_path), COHORTS["msd"], FOUR).complete) == 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            [f"c1/c1_{kind}.nii.gz" for kind in ("T1", "T1CE", "T2", "FLAIR")],
            "'c1/c1_FLAIR.nii.gz'.*rename them, as upper",
        ),
        (
            [f"c1/{kind}.nii.gz" for kind in ("t1", "t1ce", "t2", "flair")],
            "contains 'c1/flair.nii.gz', .* and 1 more;",
        ),
        (["BraTS2021.tar", "README.txt"], "it contains 'BraTS2021.tar'; unpack it"),
        (
            [f"c1_{kind}.nii/0001_brain_{kind}.nii" for kind in ("t1", "t2")],
            "c1_t1.nii' is a folder .* move the file",
        ),
        (["notes.txt"], "it contains 'notes.txt'; check dataset_dir"),
        ([f"s1_{kind}.nii.gz" for kind in ("T1w", "T2w", "FLAIR")], "or add a cohort for these names"),
        (
            [f"c1/c1-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2w", "t2f")],
            "named as in brats2023_gli or .*: give",
        ),
    ],
)
def test_a_folder_without_a_case_says_what_is_there(tmp_path, files, message):
    for file in files:
        touch((tmp_path / file).parent, file.rsplit("/", 1)[-1])
    with pytest.raises(InputError, match=rf"No case of brats2021 .*<case>_t1.nii.gz.*{message}"):
        find_cases(str(tmp_path), COHORTS["brats2021"], FOUR, COHORTS)


def test_of_two_endings_that_fit_a_name_the_longer_one_decides(tmp_path):
    endings = {"T1": ("_T1w",), "T1ce": ("_ce_T1w",)}
    cohort = Cohort("bids", ("background",), {}, (0,), suffixes=endings)
    files = tmp_path / "s1_T1w.nii.gz", tmp_path / "s1_ce_T1w.nii.gz"
    touch(tmp_path, *(file.name for file in files))
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": ["s1_ce_T1w.nii.gz", "s1_T1w.nii.gz"]}]}))
    for place in (tmp_path, tmp_path / "list.json"):
        (case,) = find_cases(str(place), cohort, ["T1", "T1ce"]).complete
        assert case.name == "s1" and case.images == tuple(map(str, files))
    assert cohort.case_of("s1_ce_T1w.nii.gz") == "s1"


def test_dicom_that_is_to_be_trained_on_is_named(tmp_path):
    (tmp_path / "P1" / "AX_T1").mkdir(parents=True)
    (tmp_path / "P1" / "AX_T1" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match="contains DICOM folders .*AX_T1' ...., .*convert them with dcm2niix"):
        find_cases(str(tmp_path), COHORTS["brats2021"], FOUR, COHORTS)


def test_a_case_of_nifti_files_needs_none_of_its_dicom_and_shares_its_name_with_none(tmp_path):
    brats2021(tmp_path / "data", "c1")
    dicom = tmp_path / "data" / "c1" / "dicom" / "AX_PD"
    dicom.mkdir(parents=True)
    (dicom / "1.dcm").write_bytes(bytes(128) + b"DICM")
    place = str(tmp_path / "data"), COHORTS["brats2021"], FOUR, COHORTS, SERIES, 0
    found = find_scans(*place)
    assert [case.name for case in found.complete] == ["c1"] and not found.left_out
    for kind in FOUR:
        (tmp_path / "data" / "raw" / "c1" / kind).mkdir(parents=True)
        (tmp_path / "data" / "raw" / "c1" / kind / "1.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match="Two cases are called c1: .*raw/c1/T1' and .*c1/c1_t1.nii.gz'; rename one"):
        find_scans(*place)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("brats2019", "named as in brats2018"),
        ("brats2024_ssa", "named as in brats2023_ssa"),
        ("brats2026_met", "named as in brats2024_met_rc; .* metastases2026"),
        ("brats2012", "the nearest is brats20"),
        ("brats_2021", "the nearest is brats2021"),
        ("brats2023", "the nearest is brats2023_gli or "),
        ("elephant", "it is 'elephant'.$"),
    ],
)
def test_an_unknown_cohort_gets_the_name_of_one_that_fits(name, hint):
    with pytest.raises(InputError, match=f"cohort must be one of brats2018, .*{hint}"):
        cohort_named(name)


def test_every_hint_names_a_cohort_and_rules_that_there_are():
    for hint in yaml.safe_load((ROOT / "bundles/common/cohorts.yaml").read_text())["named_as"].values():
        assert set(re.findall(r"brats\w+", hint)) <= COHORTS.keys()
        assert set(re.findall(r"--challenge (\w+)", hint)) <= CHALLENGES.keys()


def test_a_part_without_a_patient_is_refused_with_the_fix_that_works(tmp_path):
    brats2021(tmp_path, "c1", "c2", "c3", "c4")
    place = COHORTS["brats2021"], FOUR, COHORTS

    def parts(path, fold, share=0.2):
        return Parts(str(path), *place, fold, share, seed=0)

    usable = UsableParts(parts(tmp_path, 3), CaseCheck(place[0], COHORTS, FOUR), str(tmp_path / "out"), strict=False)
    with pytest.raises(InputError, match="no patient to validate on in fold 3: 3 of 4 .* choose a fold of 0..2."):
        assert usable.validate
    for fold in range(3):
        assert all(parts(tmp_path, fold).by_name.values())
    with pytest.raises(InputError, match="A test_share of 0 holds none of 4 patients; raise it, to 1.0 to"):
        assert parts(tmp_path, 0, 0).test
    entries = [
        {"image": [f"{case}/{case}{part}.nii.gz" for part in ("_t1", "_t1ce", "_t2", "_flair")], "fold": fold}
        | {"label": f"{case}/{case}_seg.nii.gz"}
        for fold, case in enumerate(("c1", "c2", "c3"))
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    with pytest.raises(InputError, match='list.json\' lists no labelled case to test; list some under "testing"'):
        assert parts(tmp_path / "list.json", 0).test
    with pytest.raises(InputError, match='case to validate; list some under "validation" .or with "fold": 4.'):
        parts(tmp_path / "list.json", 4).refuse_empty("validate")


def test_labelled_test_cases_of_a_datalist_without_folds_are_never_trained_on():
    listed = [
        replace(case, part=part) for case, part in zip(people(3), ("training", "validation", "test"), strict=True)
    ]
    parts = split(listed, 0, 0.2, 0)
    assert {name: [case.name for case in cases] for name, cases in parts.items()} == {
        "train": ["p000-0"],
        "validate": ["p001-0"],
        "test": ["p002-0"],
    }


@pytest.mark.parametrize(
    ("cohort", "case", "patient"),
    [
        ("brats2018", "Brats18_CBICA_AAA_1", "Brats18_CBICA_AAA"),
        ("brats2021", "BraTS2021_00012", "BraTS2021_00012"),
        ("brats2023_gli", "BraTS-GLI-00005-001", "BraTS-GLI-00005"),
        ("brats2024_met", "BraTS-MET-00110-000", "BraTS-MET-00110"),
        ("brats2023_gli", "BraTS-GoAT-00110", "BraTS-GoAT-00110"),  # without a time point
    ],
)
def test_a_case_knows_its_patient(tmp_path, cohort, case, patient):
    brats2021(tmp_path, case, parts=[given[0] for given in COHORTS[cohort].suffixes.values()])
    assert find_cases(str(tmp_path), COHORTS[cohort], FOUR).complete[0].patient == patient


def test_msd_cases_are_the_files_of_its_image_folders(tmp_path):
    touch(tmp_path / "imagesTr", "BRATS_001.nii.gz", "BRATS_002.nii.gz", "._BRATS_001.nii.gz")
    touch(tmp_path / "labelsTr", "BRATS_001.nii.gz")
    touch(tmp_path / "imagesTs", "BRATS_001.nii.gz")
    cases = find_cases(str(tmp_path), COHORTS["msd"], FOUR).complete
    assert [(case.label is not None, case.name) for case in cases] == [
        (False, "BRATS_002"),
        (True, "imagesTr_BRATS_001"),
        (False, "imagesTs_BRATS_001"),
    ]


@pytest.mark.parametrize(
    "places",
    [
        [("a", "x"), ("a", "a", "x")],  # unpacked twice
        [("a_b", "c"), ("z", "c"), ("a_b_c", "a_b_c")],
    ],
)
def test_cases_whose_folders_give_them_the_same_name_are_refused_with_both_places(places, tmp_path):
    for *folders, stem in places:
        touch(tmp_path.joinpath(*folders), *(f"{stem}{part}.nii.gz" for part in ("_t1", "_t1ce", "_t2", "_flair")))
    first, last = ("/".join(place) for place in (places[0], places[-1]))
    with pytest.raises(InputError, match="Two cases are called") as refused:
        find_cases(str(tmp_path), OWN, FOUR)
    assert f"{first}_t1.nii.gz" in str(refused.value) and f"{last}_t1.nii.gz" in str(refused.value)


def test_the_label_of_a_4d_file_is_the_one_next_to_its_folder_and_only_one_of_two_endings_is_used(tmp_path):
    for part in ("a", "b"):
        touch(tmp_path / part / "imagesTr", "x.nii.gz")
        touch(tmp_path / part / "labelsTr", "x.nii.gz")
    cases = find_cases(str(tmp_path), COHORTS["msd"], FOUR).complete
    assert [(case.name, case.label) for case in cases] == [
        (f"{part}_imagesTr_x", str(tmp_path / part / "labelsTr" / "x.nii.gz")) for part in ("a", "b")
    ]
    touch(tmp_path / "a" / "imagesTr", "x.nii")
    touch(tmp_path / "a" / "labelsTr", "x.nii", "y.nii")
    found = find_cases(str(tmp_path / "a"), COHORTS["msd"], FOUR)
    assert [case.name for case in found.complete] == ["x"] and [each.case for each in found.left_out] == ["y"]
    assert "imagesTr/x.nii.gz' is not used" in found.unused["x"][0] and "labelsTr/x.nii.gz'" in found.unused["x"][1]


@pytest.mark.parametrize("listed", [True, False])
def test_4d_files_whose_description_states_other_channels_are_refused(listed, tmp_path):
    touch(tmp_path / "imagesTr", "x.nii.gz")
    path = tmp_path / ("list.json" if listed else "dataset.json")

    def found(*channels):
        modality = dict(reversed([*enumerate(channels)]))  # the numbers count, not the order in the file
        path.write_text(json.dumps({"modality": modality, "training": [{"image": "imagesTr/x.nii.gz"}]}))
        return find_cases(str(path if listed else tmp_path), COHORTS["msd"], FOUR).complete

    assert len(found("FLAIR", "T1w", "t1gd", "T2w")) == len(found("a", "b")) == 1  # the first as published
    with pytest.raises(OptionError, match=r"states the channels T1, t1gd, .*--cohorts::msd::channels ..'T1', 'T1ce'"):
        found("T1", "t1gd", "T2", "FLAIR")


def test_the_modalities_of_a_datalist_are_in_the_order_of_their_numbers(tmp_path):
    touch(tmp_path, *(f"{number}.nii.gz" for number in range(4)))
    modality = {"3": "T2", "0": "FLAIR", "2": "T1ce", "1": "T1"}
    entries = [{"case": "a", "image": [f"{number}.nii.gz" for number in range(4)]}]
    (tmp_path / "list.json").write_text(json.dumps({"modality": modality, "training": entries}))
    (case,) = find_cases(str(tmp_path / "list.json"), OWN, FOUR).complete
    assert [image[-8] for image in case.images] == ["1", "2", "3", "0"]


def test_a_testing_case_of_a_datalist_is_not_trained_on_whatever_its_fold(tmp_path):
    brats2021(tmp_path, "c1", "c2", "c3")
    entries = {
        case: {"image": [f"{case}/{case}{part}.nii.gz" for part in ("_t1", "_t1ce", "_t2", "_flair")], "fold": fold}
        | {"label": f"{case}/{case}_seg.nii.gz"}
        for case, fold in {"c1": 1, "c2": "0", "c3": 1}.items()
    }
    content = {"training": [entries["c1"], entries["c2"]], "testing": [entries["c3"]]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    parts = split(find_cases(str(tmp_path / "list.json"), OWN, FOUR).complete, 0, 0.2, 0)
    assert {name: [case.name for case in cases] for name, cases in parts.items()} == {
        "train": ["c1"],
        "validate": ["c2"],
        "test": ["c3"],
    }


def test_cases_without_a_label_do_not_vanish_from_a_training_without_a_word(tmp_path, caplog):
    brats2021(tmp_path, "c1", "c2", "c3")
    (tmp_path / "c2" / "c2_seg.nii.gz").rename(tmp_path / "c2" / "c2_SEG.nii.gz")
    parts = Parts(str(tmp_path), OWN, FOUR, COHORTS, 0, 0, seed=0).by_name
    assert sum(map(len, parts.values())) == 2
    assert "1 of 3 cases have no label and are not used, e.g. c2." in caplog.text and "c2_SEG.nii.gz'" in caplog.text


def test_a_folder_may_be_called_like_a_datalist_and_a_case_by_any_printed_name(tmp_path):
    names = ["c 1", "c\u00a02", "\u5c71\u7530\u3000\u592a\u90ce"]
    brats2021(tmp_path / "data.json", *names)
    found = find_cases(str(tmp_path / "data.json"), OWN, FOUR)
    assert [case.name for case in found.complete] == names


def test_a_second_series_of_a_modality_is_reported(tmp_path):
    for folder in ("T1", "AX_T1", "T2"):
        (tmp_path / "P1" / folder).mkdir(parents=True)
        (tmp_path / "P1" / folder / "1.dcm").write_bytes(bytes(128) + b"DICM")
    found = series_cases(tmp_path, SERIES, ["T1", "T2"])
    assert [image.rsplit("/", 1)[1] for image in found.complete[0].images] == ["T1", "T2"]
    (sentence,) = found.sentences()
    assert "P1: " in sentence and "AX_T1' is not used, because" in sentence and "/T1' is also a T1" in sentence


def test_a_named_pipe_among_the_scans_is_not_opened(tmp_path):
    (tmp_path / "D1" / "T1").mkdir(parents=True)
    os.mkfifo(tmp_path / "D1" / "T1" / "pipe")
    (tmp_path / "D1" / "T1" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    assert [case.name for case in series_cases(tmp_path, SERIES, ["T1"]).complete] == ["D1"]


@pytest.mark.parametrize("cohort", list(COHORTS))
def test_a_wrong_folder_gives_one_clear_sentence(tmp_path, cohort):
    with pytest.raises(InputError, match="is not a folder; give the folder that contains the cases"):
        find_cases(str(tmp_path / "nowhere"), COHORTS[cohort], FOUR)
    with pytest.raises(InputError, match="No case of .* check dataset_dir and cohort"):
        find_cases(str(tmp_path), COHORTS[cohort], FOUR)
    with pytest.raises(InputError, match="must be one or more of"):
        find_cases(str(tmp_path), COHORTS[cohort], ["T1", "T3"])


def test_items_of_a_client_belong_to_the_patient_in_their_file_name():
    items = [{"image": "a/BraTS-GLI-00005-100.nii.gz"}, {"image": ["b/BraTS-GLI-00007-000-t1n.nii", "b/x.nii"]}]
    assert patients({"train": items}, COHORTS["brats2023_gli"])["train"] == ["BraTS-GLI-00005", "BraTS-GLI-00007"]


@pytest.mark.parametrize("fold", range(5))
def test_no_patient_is_in_two_parts_and_none_is_lost(fold):
    parts = split(people(53, scans=3), fold, 0.2, seed=0)
    named = patients(parts, OWN)
    together = [patient for part in named.values() for patient in part]
    assert len(together) == len(set(together)) == 53
    assert sum(map(len, parts.values())) == 159
    assert len(named["test"]) == 11 and 8 <= len(named["validate"]) <= 9


def test_every_patient_outside_the_test_share_is_used_for_validation_in_exactly_one_fold():
    parts = [patients(split(people(53), fold, 0.2, seed=0), OWN) for fold in range(5)]
    assert len({tuple(part["test"]) for part in parts}) == 1
    validated = [patient for part in parts for patient in part["validate"]]
    assert len(validated) == len(set(validated)) == 42


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_files():
    forward, backward = (patients(split(cases, 0, 0.2, seed=0), OWN) for cases in (people(30), people(30)[::-1]))
    assert forward == backward
    assert forward != patients(split(people(30), 0, 0.2, seed=1), OWN)


def test_sixteen_patients_are_split_into_ten_three_and_three_the_same_for_ever():
    parts = patients(split(people(16), 0, 0.2, seed=0), OWN)
    assert len(parts["train"]) == 10
    # by `echo -n 0/p000 | sha256sum`: of all the first three, and of the others the first, sixth and eleventh
    assert parts["test"] == ["p000", "p004", "p013"] and parts["validate"] == ["p008", "p009", "p010"]


@pytest.mark.parametrize(("fold", "share"), [(5, 0.2), (-1, 0.2), (0, 1.5)])
def test_a_wrong_fold_or_share_is_refused(fold, share):
    with pytest.raises(InputError, match="it must"):
        split(people(10), fold, share, 0)


def test_cases_without_labels_cannot_be_split():
    with pytest.raises(InputError, match="None of the cases has a label"):
        split(people(10, label=None), 0, 0.2, 0)


def test_a_datalist_that_puts_a_patient_into_two_parts_is_refused():
    cases = [replace(case, part=part) for case, part in zip(people(1, scans=2), (0, 1), strict=True)]
    with pytest.raises(InputError, match="Patient p000 is in the validate and the train part"):
        split(cases, 0, 0.2, 0)


def test_patients_used_for_training_or_selection_are_never_scored(tmp_path, caplog):
    record = tmp_path / "patients.json"
    assert len(not_seen(people(4), str(record))) == 4 and "if patients to test on were used" in caplog.text
    record.write_text('{"train": ["p000"], "validate": ["p002"], "test": []}')
    assert [case.patient for case in not_seen(people(4), str(record))] == ["p001", "p003"]
    assert "2 of 4 cases were used for training or model selection and are not scored." in caplog.text
    with pytest.raises(InputError, match="1 of 1 cases were used for training or model selection"):
        not_seen(people(1), str(record))
    assert "1 of 1 cases" not in caplog.text  # it is said once
    with pytest.raises(InputError, match="The test part has no patient"):
        not_seen([], str(record))


@pytest.mark.parametrize(
    ("trained", "trained_on", "warned"),
    [
        ("q9", ["brats2021"], True),
        ("q9", ["brats2023_gli"], False),
        ("p000", ["brats2021"], False),
        ("q9", ["brats2021", "brats2023_gli"], True),
        ("p000", ["brats2021", "brats2023_gli"], True),  # p000 may be known by its id in the second
    ],
)
def test_patients_of_another_data_set_than_that_of_the_weights_may_be_the_same(
    trained, trained_on, warned, tmp_path, caplog
):
    (tmp_path / "patients.json").write_text(json.dumps({"train": [trained], "validate": []}))
    not_seen(people(2), str(tmp_path / "patients.json"), "brats2023_gli", trained_on)
    warning = "used for training with other ids: the weights were trained on brats2021,"
    assert (warning in caplog.text) == warned


def test_the_log_says_when_not_all_cases_are_tested_on(tmp_path, caplog):
    brats2021(tmp_path, *"abcdef")
    with caplog.at_level("INFO", "bundle"):
        for share in (0.5, 1.0):
            assert len(Parts(str(tmp_path), OWN, FOUR, COHORTS, 0, share, 0).test) == 6 * share
    assert [line for line in caplog.messages if "testing" in line] == ["testing on 3 of 6 cases, by --test_share 0.5."]


def test_a_label_in_another_folder_belongs_to_the_one_case_of_its_name(tmp_path, caplog):
    for root in ("raw", "copy"):
        brats2021(tmp_path / root, "c1", parts=("_t1", "_t1ce", "_t2", "_flair"))
    touch(tmp_path / "derivatives" / "c1", "c1_seg.nii.gz", "c2_seg.nii.gz")
    touch(tmp_path / "second" / "c1", "c1_seg.nii.gz", "c1_t1.nii.gz")
    case = find_cases(str(tmp_path / "raw"), OWN, FOUR).complete[0]
    assert case.label is None
    (tmp_path / "copy").rename(tmp_path / ".copy")
    found = find_cases(str(tmp_path), OWN, FOUR)
    assert [case.label for case in found.complete] == [str(tmp_path / "derivatives" / "c1" / "c1_seg.nii.gz")]
    assert ["also a label" in text or "also a T1" in text for text in found.unused["c1"]] == [True, True]
    with caplog.at_level("INFO", "bundle"):
        assert Parts(str(tmp_path), OWN, FOUR, COHORTS, fold=0, test_share=1.0, seed=0).by_name["test"]
    assert "labels in other folders than their scans: 1, e.g. '" in caplog.text
    (tmp_path / ".copy").rename(tmp_path / "copy")  # which of the two cases the label belongs to is not known
    found = find_cases(str(tmp_path), OWN, FOUR)
    assert [case.label for case in found.complete] == [None, None]
    assert "c1_seg.nii.gz' is not in the folder of the other files" in str(found.unused)


def test_a_patient_whose_name_now_begins_with_its_folder_is_recognised(tmp_path):
    brats2021(tmp_path / "a", "c1", "c2")
    brats2021(tmp_path / "b", "c1")
    cases = find_cases(str(tmp_path), OWN, FOUR).complete
    assert [case.patient for case in cases] == ["a_c1", "b_c1", "c2"]
    for trained in ("c1", "a_c1"):
        (tmp_path / "patients.json").write_text(json.dumps({"train": [trained], "validate": []}))
        left = [case.name for case in not_seen(cases, str(tmp_path / "patients.json"))]
        assert left == (["c2"] if trained == "c1" else ["b_c1", "c2"])
    (tmp_path / "patients.json").write_text(json.dumps({"train": ["old_set_c2"], "validate": []}))
    assert "c2" not in [case.name for case in not_seen(cases, str(tmp_path / "patients.json"))]


def test_only_patients_used_for_selection_are_used_for_fitting(tmp_path):
    record = tmp_path / "patients.json"
    with pytest.raises(InputError, match="train first"):
        used_for_selection(people(4), str(record))
    record.write_text('{"train": ["p000"], "validate": ["p002", "p003"], "test": ["p001"]}')
    cases = people(3, scans=2) + people(4, label=None)[3:]
    assert [case.name for case in used_for_selection(cases, str(record))] == ["p002-0", "p002-1"]
    with pytest.raises(InputError, match="no labelled case of the patients that were used for model selection"):
        used_for_selection(people(2), str(record))
    record.write_text('{"train": ["p000"], "validate": ["p000", "p001"]}')  # it started from weights that knew p000
    assert [case.name for case in used_for_selection(people(2), str(record))] == ["p001-0"]
    for selected in ([], ["p000"]):
        record.write_text(json.dumps({"train": ["p000"], "validate": selected}))
        with pytest.raises(InputError, match="no patient was used for model selection .*; fit .* with --keep best"):
            used_for_selection(people(2), str(record))


OF_2023 = {"necrotic": 1, "oedema": 2, "enhancing": 3}
STATED = {  # the label values, as the organisers of each data set state them
    **dict.fromkeys(("brats2018", "brats2020", "brats2021"), {"necrotic": 1, "oedema": 2, "enhancing": 4}),
    **dict.fromkeys([f"brats2023_{kind}" for kind in ("gli", "ssa", "men", "ped", "met")] + ["brats2024_met"], OF_2023),
    **dict.fromkeys(("brats2024_gli", "brats2024_met_rc"), OF_2023 | {"cavity": 4}),
    "brats2024_ped": {"enhancing": 1, "necrotic": 2, "cyst": 3, "oedema": 4},
    "msd": {"oedema": 1, "necrotic": 2, "enhancing": 3},
}
TASKS = {"gli": "glioma", "ssa": "africa", "men": "meningioma", "ped": "pediatric", "met": "metastases"}


def test_label_values_mean_what_the_organisers_state_and_core_and_whole_tumour_contain_all_but_a_cavity():
    assert STATED.keys() == COHORTS.keys()
    for name, values in STATED.items():
        cohort, tumour = COHORTS[name], values.keys() - {"cavity"}
        assert dict(zip(cohort.classes, cohort.label_values, strict=True)) == {"background": 0, **values}, name
        assert {*cohort.regions["WT"]} == tumour and {*cohort.regions["TC"]} == tumour - {"oedema"}, name
        assert cohort.regions["ET"] == ("enhancing",), name


@pytest.mark.parametrize("name", COHORTS)
def test_a_data_set_is_scored_by_the_rules_of_its_own_challenge(name):
    challenge = re.fullmatch(r"brats(\d{4})_(\w{3}).*", name)
    assert COHORTS[name].challenge == (f"{TASKS[challenge[2]]}{challenge[1]}" if challenge else "legacy")


def test_a_label_value_within_a_hundredth_counts_as_that_value_and_others_are_reported():
    values = np.array([0, 1.00002, 1.9999, 4], np.float64).reshape(1, 1, 4)
    assert COHORTS["brats2021"].to_classes(values, "x").tolist() == [[[0, 1, 2, 3]]]
    with pytest.raises(InputError, match=r"x contains \[1.5\], but brats2021 has \[0, 1, 2, 4\]"):
        COHORTS["brats2021"].to_classes(np.array([0, 1.5]), "x")


@pytest.mark.parametrize("cohort", COHORTS.values(), ids=str)
def test_to_values_and_to_classes_of_a_cohort_are_inverse(cohort):
    classes = np.arange(len(cohort.classes), dtype=np.uint8)
    assert cohort.to_classes(cohort.to_values(classes), "x").tolist() == classes.tolist()
    masks = cohort.masks(classes)
    assert masks["WT"].tolist() == [name in cohort.regions["WT"] for name in cohort.classes]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file": {}}, "cohort mine has the unknown key file"),
        ({"label_values": [0, 1]}, "has 2 label_values for 4 classes"),
        ({"label_values": [0, 1, 1, 4]}, r"has the label_values .0, 1, 1, 4.; give different whole numbers"),
        ({"label_values": [0, 1, 2, 300]}, "give different whole numbers from 0 to 255"),
        ({"label_values": ["0", "1", "2", "4"]}, "give different whole numbers"),
        ({"classes": ["background", "a", "a", "enhancing"], "regions": {"A": ["a"]}}, "give each another name"),
        ({"regions": {}}, "has no region, or one without a class"),
        ({"regions": {"WT": []}}, "has no region, or one without a class"),
        ({"patient": "(.+"}, "which is no regular expression"),
        ({"patient": ".+"}, r"without a group; write \(\.\+\)"),
        ({"regions": {"oedema": ["necrotic", "oedema"]}}, "has a region and a class called oedema; rename the region"),
        ({"regions": {"WT": ["edema"]}}, "has a region with the unknown class edema; its classes are"),
        ({"folders": {"image": "i", "label": "l"}}, "must have either files, or folders"),
    ],
)
def test_an_inconsistent_cohort_is_refused(entry, message):
    good = {
        "files": {"T1": "_t1", "label": "_seg"},
        "label_values": [0, 1, 2, 3],
        "patient": "(.+)",
        "challenge": "legacy",
    }
    usual = yaml.safe_load((ROOT / "bundles/common/cohorts.yaml").read_text())["usual"]
    assert Cohort.from_config("mine", good, usual).modalities == ("T1",)
    with pytest.raises(InputError, match=message):
        Cohort.from_config("mine", {**good, **entry}, usual)


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_each_patient_outside_the_test_share_is_in_exactly_one_of_any_number_of_folds(folds):
    cases = people(20, scans=2)
    splits = [split(cases, fold, 0.2, seed=0, folds=folds) for fold in range(folds)]
    held_out = [case.name for parts in splits for case in parts["validate"]]
    assert len(held_out) == len({*held_out}) == 32
    for parts in splits:
        patients = {name: {case.patient for case in part} for name, part in parts.items()}
        assert not patients["train"] & patients["validate"] and len(patients["test"]) == 4
    with pytest.raises(InputError, match=f"from 0 to {folds - 1}, or all"):
        split(cases, folds, 0.2, seed=0, folds=folds)


def test_fold_all_uses_every_patient_outside_the_test_share_for_training():
    cases = people(20)
    parts = split(cases, "all", 0.2, seed=0)
    assert [len(parts[name]) for name in ("train", "validate", "test")] == [16, 0, 4]
    assert parts["test"] == split(cases, 3, 0.2, seed=0)["test"]
    listed = [replace(case, part=part) for case, part in zip(cases, [0, 1, "validation", "testing"] * 5, strict=True)]
    assert [len(part) for part in split(listed, "all", 0.2, seed=0).values()] == [15, 0, 5]


def test_names_that_are_not_utf_8_are_named_and_the_other_cases_are_used(tmp_path):
    bad, odd = (os.fsdecode(name) for name in (b"M\xfcller", b"\xff"))
    brats2021(tmp_path, "good", bad)
    touch(tmp_path / "odd", *(f"{odd}{part}.nii.gz" for part in ("_t1", "_t1ce", "_t2", "_flair")))
    found = find_cases(str(tmp_path), COHORTS["brats2021"], FOUR)
    assert [case.name for case in found.complete] == ["good"]
    said = "\n".join(found.sentences())
    assert "M\\udcfcller" in said and "\\udcff_t1.nii.gz" in said and said.encode()
    with pytest.raises(OptionError, match="dataset_dir is .*udcfcller', which is not UTF-8"):
        find_cases(str(tmp_path / bad), COHORTS["brats2021"], FOUR)


def test_patients_recorded_under_another_cohort_are_not_scored_as_unseen(tmp_path):
    """brats2021 takes the whole case id for the patient, brats2018 drops its last part."""
    record = tmp_path / "patients.json"
    record.write_text('{"train": ["Brats18_A_1"], "validate": [], "test": []}')
    known, other = (Case(f"{patient}_1", patient, ("a", "b", "c", "d")) for patient in ("Brats18_A", "Brats18_B"))
    assert not_seen([known, other], str(record)) == [other]


def test_cases_for_model_selection_are_found_under_another_cohort(tmp_path):
    record = tmp_path / "patients.json"
    record.write_text('{"train": [], "validate": ["Brats18_A_1"], "test": []}')
    files = ("a", "b", "c", "d")
    known, other = (Case(f"{patient}_1", patient, files, label="e") for patient in ("Brats18_A", "Brats18_B"))
    assert used_for_selection([known, other], str(record)) == [known]


def test_cases_with_one_id_in_two_folders_count_as_two_patients_with_a_warning(tmp_path, caplog):
    brats2021(tmp_path / "old", "P1", "P2")
    brats2021(tmp_path / "new", "P1", "P3")
    place = COHORTS["brats2021"], FOUR, COHORTS
    parts = Parts(str(tmp_path), *place, fold=0, test_share=0.2, seed=0)
    assert len({case.patient for part in parts.by_name.values() for case in part}) == 4
    assert "new_P1 and old_P1 have files with the same id in different folders" in caplog.text
    caplog.clear()
    assert Parts(str(tmp_path / "old"), *place, fold=0, test_share=0.2, seed=0).by_name and not caplog.text
    touch(tmp_path / "bare" / "P4", *(f"{part}.nii.gz" for part in ("_t1", "_t1ce", "_t2", "_flair", "_seg")))
    touch(tmp_path / "bare" / "P5", *(f"{part}.nii.gz" for part in ("_t1", "_t1ce", "_t2", "_flair", "_seg")))
    assert Parts(str(tmp_path / "bare"), *place, fold=0, test_share=0.2, seed=0).by_name and not caplog.text
