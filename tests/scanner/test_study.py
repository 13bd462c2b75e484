"""The modality of a series is found from its description and parameters, and asked for where that is not certain."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import yaml
from tumour.errors import CaseError, InputError
from tumour.scanner.study import Series, choose, modality_of, patient_folders, sequence_of, series_of

from tests.cohorts import COHORTS, FOUR
from tests.conftest import ROOT
from tests.scanner.heads import needs
from tests.scans.test_dicom import oblique, write_slices

NAMES = yaml.safe_load((ROOT / "bundles/common/cohorts.yaml").read_text(encoding="utf-8"))["series"]
T1 = {"EchoTime": 2.3, "RepetitionTime": 1900, "InversionTime": 900, "ScanningSequence": ["GR", "IR"]}
SPIN = {"EchoTime": 9, "RepetitionTime": 550, "ScanningSequence": "SE"}
T2 = {"EchoTime": 96, "RepetitionTime": 5000, "ScanningSequence": "SE"}
FLAIR = {"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500, "ScanningSequence": ["SE", "IR"]}
GAD = {"ContrastBolusAgent": "Gadovist"}


@pytest.mark.parametrize(
    ("description", "tags", "modality"),
    [
        ("t1_mprage_sag_p2_iso", T1, "T1"),
        ("t1_mprage_sag_p2_iso", T1 | GAD, "T1ce"),
        ("t1_mprage_sag_p2_iso", T1 | {"ContrastBolusAgent": "NONE"}, "T1"),
        ("AX T1 PRE CONTRAST", SPIN, "T1"),
        ("t1 w/o contrast", SPIN, "T1"),
        ("t1 post", SPIN | {"EchoTime": ["9", "9"]}, "T1ce"),  # a value that breaks the standard says nothing
        ("t1 post", SPIN | {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "other"),
        ("AX T1 +C", SPIN, "T1ce"),
        ("Ax T1 FSE Post Gd", SPIN, "T1ce"),
        ("AX T1 FLAIR", {"EchoTime": 10, "RepetitionTime": 2500, "InversionTime": 900}, "T1"),
        ("AX T1 FLAIR POST", {"EchoTime": 10, "RepetitionTime": 2500, "InversionTime": 900}, "T1ce"),
        ("T2W_TSE", T2, "T2"),
        ("t2_tirm_tra_dark-fluid", FLAIR, "FLAIR"),
        ("SAG 3D FLAIR POST", FLAIR | GAD, "FLAIR"),
        ("FLAIR", T2, "FLAIR"),  # the inversion time is not in every header
        ("BRAVO", T1, "T1"),
        ("Axial", T2, "T2"),
        ("Axial", FLAIR, "FLAIR"),
        ("Axial", {}, ""),
        ("AX T2", SPIN, ""),  # the parameters are not those of a T2
        ("AX T1", T2, ""),
        ("PD tra", {"EchoTime": 20, "RepetitionTime": 3000}, "other"),
        ("T2* GRE", {"EchoTime": 20, "RepetitionTime": 700, "ScanningSequence": "GR"}, "other"),
        ("localizer", SPIN, "other"),
        ("3-plane loc", SPIN, "other"),
        ("Axial", SPIN | {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "other"),
        ("t1_sub post", T1, "other"),
        ("ep2d_diff_b0", {"EchoTime": 80, "RepetitionTime": 4000, "ScanningSequence": "EP"}, "other"),
        ("ADC", {}, "other"),
        ("head", {"Modality": "CT"}, "other"),
    ],
)
def test_a_series_is_recognised(description, tags, modality):
    assert modality_of({"SeriesDescription": description, **tags}, NAMES) == modality


def test_the_effective_echo_time_of_an_enhanced_series_counts():
    assert sequence_of({"EchoTime": 5, "EffectiveEchoTime": 96, "RepetitionTime": 4000}) == "T2"


def found(*modalities, sure=(), **about):
    return [Series(f"{m} {k}", (f"{k}.dcm",), m, k in sure, **about) for k, m in enumerate(modalities)]


def test_each_modality_gets_its_series_and_a_folder_named_after_it_decides_between_two():
    chosen = choose(found("T1", "T1ce", "other", "T2", "FLAIR", "T2", "", sure=[5]), FOUR)
    assert [chosen[name].name for name in FOUR] == ["T1 0", "T1ce 1", "T2 5", "FLAIR 4"]


def test_a_folder_named_after_a_modality_takes_a_series_of_another_study():
    assert len(choose(found("T1", "T1ce", "FLAIR", study="1") + found("T2", sure=[0], study="2"), FOUR)) == 4


@pytest.mark.parametrize(
    ("series", "sentence"),
    [
        (found("T1", "T1ce", "T1ce", "T2", "FLAIR"), "'T1ce 1' and 'T1ce 2' may all be T1ce; put the right one into a"),
        (found("T1", "", "T2", "FLAIR"), r"no series that is certainly T1ce; it has 'T1 0' \(T1\), ' 1' \(unclear\)"),
        (found("other"), r"certainly T1 or T1ce or T2 or FLAIR; it has 'other 0' \(other\); put the right one"),
        ([], "neither DICOM files nor any that end in .nii"),
        (found("T1", "T1ce", patient="A") + found("T2", "FLAIR", patient="B"), "belong to the patients A and B"),
        (found(*FOUR, patient="A") + found("T2", patient="B"), "belong to the patients A and B; give each patient a f"),
        (found("T1", "T1ce", patient="A", person="ab") + found("T2", "FLAIR", patient="A", person="cd"), "several pat"),
        (found("T1", "T1ce", study="2025 1") + found("T2", "FLAIR", study="2026 2"), "the studies 2025 1 and 2026 2;"),
        (found(*FOUR, study="2025 1") + found(*FOUR, study="2026 2"), "studies 2025 1 and 2026 2; give each study a f"),
    ],
)
def test_what_is_not_certain_is_asked_for_in_one_sentence(series, sentence):
    with pytest.raises(CaseError, match=sentence):
        choose(series, FOUR)


def test_nifti_files_are_found_by_the_names_of_a_cohort_by_words_and_by_their_folder(tmp_path):
    for name in (
        "P1_t1.nii.gz",
        "sub-1_T1w_post.nii.gz",
        "T2/scan.nii.gz",
        "P1_t2_flair.nii",
        "P1_seg.nii.gz",
        "t1_mask.nii",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(np.ones((9, 9, 9)), np.eye(4)), tmp_path / name)
    chosen = choose(series_of(tmp_path, COHORTS["brats2021"], NAMES), FOUR)
    names = ["P1_t1.nii.gz", "sub-1_T1w_post.nii.gz", "scan.nii.gz", "P1_t2_flair.nii"]
    assert [chosen[name].name for name in FOUR] == names and chosen["T2"].sure


def test_the_ending_of_a_nifti_file_may_be_in_upper_case_and_its_longest_suffix_is_its_modality(tmp_path):
    cohort = replace(COHORTS["brats2021"], suffixes={"T1": ("_t1",), "T1ce": ("_ce_t1",), "label": ("_seg",)})
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9)), np.eye(4)), tmp_path / "a_t1.nii.gz")
    (tmp_path / "a_t1.nii.gz").rename(tmp_path / "P1_ce_t1.NII.GZ")
    assert patient_folders(str(tmp_path)) == [tmp_path]
    (series,) = series_of(tmp_path, cohort, NAMES)
    assert series.modality == "T1ce" and not series.is_dicom and series.read().shape == (9, 9, 9)


def test_a_folder_of_patients_and_the_folder_of_one_are_both_taken(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "B").mkdir()
    assert patient_folders(str(tmp_path)) == [tmp_path / "A", tmp_path / "B"]
    (tmp_path / "A" / "t1.nii.gz").touch()
    assert patient_folders(str(tmp_path / "A")) == [tmp_path / "A"]
    for folder in (tmp_path / "B", tmp_path / "C", ""):
        with pytest.raises(InputError, match="one folder per patient"):
            patient_folders(str(folder))


@needs("pydicom")
def test_series_are_found_in_one_heap_of_files_by_their_headers(tmp_path):
    voxels = np.random.default_rng(0).integers(1, 900, (12, 10, 9)).astype(np.int16)
    kinds = {"T1ce": ("t1_mprage", T1 | GAD), "T1": ("t1_tse", SPIN), "T2": ("t2", T2), "FLAIR": ("dark fluid", FLAIR)}
    codes = {"EchoTime": "0018|0081", "RepetitionTime": "0018|0080", "InversionTime": "0018|0082"}
    codes |= {"ContrastBolusAgent": "0018|0010"}
    for number, (description, tags) in enumerate([*kinds.values(), ("localizer", SPIN)], 1):
        given = {codes[name]: str(value) for name, value in tags.items() if name in codes} | {"0020|000d": "1.2.3"}
        write_slices(tmp_path, voxels + number, oblique(), range(9), number, **{"0008|103e": description}, **given)
    chosen = choose(series_of(tmp_path, COHORTS["brats2021"], NAMES), FOUR)
    for number, name in enumerate(kinds, 1):
        scan = chosen[name].read()
        assert np.array_equal(scan.data, voxels + number) and np.allclose(scan.affine, oblique(), atol=1e-4), name


@needs("pydicom")
def test_a_survey_of_three_slices_is_no_scan(tmp_path):
    write_slices(tmp_path, np.ones((12, 10, 3)), oblique(), range(3), **{"0008|103e": "t1"})
    assert [each.modality for each in series_of(tmp_path, COHORTS["brats2021"], NAMES)] == ["other"]


@needs("pydicom")
@pytest.mark.parametrize("size", [200, 700])
def test_a_damaged_dicom_file_is_named(size, tmp_path):
    write_slices(tmp_path, np.ones((12, 10, 9)), oblique(), range(9), **{"0008|103e": "t1"})
    last = sorted(tmp_path.iterdir())[-1]  # without it, the others are a series
    last.write_bytes(last.read_bytes()[:size])
    with pytest.raises(InputError, match=f"{last.name}.* is an incomplete or damaged|is not a complete DICOM series"):
        [each.read() for each in series_of(tmp_path, COHORTS["brats2021"], NAMES)]
