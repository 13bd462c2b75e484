"""A folder of DICOM series is segmented like the NIfTI files of the same scans."""

from dataclasses import replace

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from tumour.cases.find import find_cases
from tumour.cases.series import series_cases
from tumour.checks.case import CaseCheck
from tumour.errors import InputError
from tumour.scans.readers import read_scan
from tumour.scans.series import read_series

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, parser_of, run, succeed

NAMES = {"T1": ["t1"], "T1ce": ["t1ce"], "T2": ["t2"], "FLAIR": ["flair"]}


def write_series(path, folder, number, keep=slice(None), patient=""):
    """The voxels of a NIfTI file in LPS order as a DICOM series."""
    image = nib.load(path)
    array, affine = np.asarray(image.dataobj), np.diag([-1, -1, 1, 1]) @ image.affine
    folder.mkdir(parents=True, exist_ok=True)
    uid = f"1.2.826.0.1.3680043.2.1125.{number}"
    for k in np.arange(array.shape[2])[keep]:
        origin = nib.affines.apply_affine(affine, [0, 0, k])
        part = itk.image_from_array(np.ascontiguousarray(array[..., k : k + 1].T).astype(np.int16))
        part.SetSpacing([float(mm) for mm in nib.affines.voxel_sizes(affine)])
        part.SetOrigin([float(mm) for mm in origin])
        tags = {"0020|000d": uid, "0020|000e": f"{uid}.1", "0020|0013": str(k + 1), "0008|0060": "MR"}
        for tag, value in (tags | {"0008|0021": "20260101", "0010|0020": patient}).items():
            part.GetMetaDataDictionary()[tag] = value
        writer = itk.GDCMImageIO.New()
        writer.KeepOriginalUIDOn()
        itk.imwrite(part, str(folder / f"{number}-{k:03}.dcm"), imageio=writer)


@pytest.fixture
def scans(patients, tmp_path):
    """Two patients, the second without T2, as NIfTI files and as DICOM folders."""
    cases = find_cases(str(patients("brats2021")), COHORTS["brats2021"], FOUR).complete
    for number, case in enumerate(cases[:2]):
        for place, (name, path) in enumerate(zip(FOUR, case.images, strict=True)):
            if not (number and name == "T2"):
                write_series(path, tmp_path / "dicom" / case.name / name, 10 * number + place)
    return tmp_path / "dicom", cases


def test_a_series_has_the_voxels_and_the_position_of_the_scan_it_was_made_from(scans):
    folder, cases = scans
    data, affine, _ = read_series(str(folder / cases[0].name / "T2"))
    scan = read_scan(cases[0].images[2])
    assert np.array_equal(data, scan.data) and np.allclose(affine, scan.affine)


def test_dicom_and_nifti_give_the_network_the_same_input(scans, patients, tmp_path):
    folder, _ = scans
    seen = []
    for data in (folder, patients("brats2021")):
        parser = parser_of("brats2021", data, "brats", "inference", ckpt_dir=str(tmp_path))
        seen.append(
            parser.get_parsed_content("preprocessing")(parser.get_parsed_content("scans").complete[0].item())["image"]
        )
    assert torch.equal(*seen) and torch.allclose(seen[0].affine, seen[1].affine)


def test_cases_of_series_are_found_with_their_missing_modalities(scans):
    folder, cases = scans
    found = series_cases(folder, NAMES, FOUR)
    (first,), (second,) = found.complete, found.incomplete
    assert [path.rsplit("/", 1)[1] for path in first.images] == FOUR
    assert second.modalities == ("T1", "T1ce", "FLAIR") and len(second.images) == 3


def test_cases_with_the_same_name_stay_separate_and_series_of_two_patients_are_refused(scans, tmp_path):
    folder, cases = scans
    for number, patient in enumerate(("P1", "P2")):
        for place, name in enumerate(("T1", "T1ce")):
            write_series(
                cases[number].images[place],
                tmp_path / "two" / patient / "20240101" / name,
                60 + 2 * number + place,
                patient=patient,
            )
    found = series_cases(tmp_path / "two", NAMES, ["T1", "T1ce"])
    assert [case.name for case in found.complete] == ["P1_20240101", "P2_20240101"]
    check = CaseCheck(COHORTS["brats2021"], COHORTS, ["T1", "T1ce"])
    assert [finding.faults for finding in map(check, found.complete)] == [[], []]
    mixed = replace(found.complete[0], images=(found.complete[0].images[0], found.complete[1].images[1]))
    assert any("is of patient P1, " in fault and "of P2" in fault for fault in check(mixed).faults)


def test_two_series_in_a_folder_missing_slices_and_unregistered_series_are_reported(scans):
    folder, cases = scans
    case = folder / cases[0].name
    with pytest.raises(InputError, match="holds 0 DICOM series"):
        read_series(str(folder))
    write_series(cases[1].images[0], case / "T1", 99)
    with pytest.raises(InputError, match="T1' holds 2 DICOM series; keep the one"):
        read_series(str(case / "T1"))
    sorted((case / "T2").iterdir())[20].unlink()
    with pytest.raises(InputError, match="T2' has slices missing or unevenly spaced"):
        read_series(str(case / "T2"))


def test_dicom_is_segmented_on_its_own_grid_and_unusable_cases_are_reported(scans, patients, tmp_path):
    folder, cases = scans
    third = folder / "unregistered"
    for name, path in zip(FOUR, cases[2].images, strict=True):
        write_series(path, third / name, 50 + len(name), slice(0, 30) if name == "T1ce" else slice(None))
    succeed("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), epochs=1)
    done = run("inferring", BUNDLES[0], tmp_path, "brats2021", folder)
    made = nib.load(tmp_path / "results" / "segmentations" / f"{cases[0].name}.nii.gz")
    scan = nib.load(cases[0].images[0])
    assert np.allclose(made.affine, scan.affine) and made.shape == scan.shape and made.get_data_dtype() == np.uint8
    assert done.returncode == 1 and "1 of 3 cases segmented" in done.stdout
    assert f"{cases[1].name}: it has no series of T2; add it (the network" in done.stdout
    assert "has the shape (40, 40, 30)" in done.stdout and "(40, 40, 40)" in done.stdout
