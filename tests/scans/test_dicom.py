"""A folder of DICOM series is segmented like the NIfTI files of the same scans."""

import locale
import re
from dataclasses import replace

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from tumour.cases.find import find_cases, find_scans
from tumour.cases.series import series_cases
from tumour.checks.case import CaseCheck
from tumour.errors import InputError
from tumour.scans.readers import read_scan
from tumour.scans.series import read_series

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, ROOT, parser_of, run, succeed

SERIES = yaml.safe_load((ROOT / "bundles/common/cohorts.yaml").read_text(encoding="utf-8"))["series"]


def write_series(path, folder, number, keep=slice(None), patient=""):
    """The voxels of a NIfTI file in LPS order as a DICOM series."""
    image = nib.load(path)
    places = np.arange(image.shape[2])[keep]
    write_slices(folder, np.asarray(image.dataobj)[..., keep], image.affine, places, number, **{"0010|0020": patient})


def write_slices(folder, array, affine, places, number=1, name="{number}-{k:03}.dcm", shift=(0, 0, 0), **tags):
    """Slices (x, y, slice) as a DICOM series, at `places` along the affine, shifted by `shift` mm per slice.

    Args:
        tags: values for all slices, or a function of the slice's number.
    """
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = nib.affines.voxel_sizes(lps)
    folder.mkdir(parents=True, exist_ok=True)
    uid = f"1.2.826.0.1.3680043.2.1125.{number}"
    for k, place in enumerate(places):
        part = itk.image_from_array(np.ascontiguousarray(array[..., k : k + 1].T).astype(np.int16))
        part.SetSpacing([float(mm) for mm in spacing])
        part.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
        part.SetOrigin([float(mm) for mm in nib.affines.apply_affine(lps, [0, 0, place]) + k * np.array(shift)])
        usual = {"0020|000d": uid, "0020|000e": f"{uid}.1", "0020|0013": str(k + 1), "0008|0060": "MR"}
        for tag, value in (usual | {"0008|0021": "20260101"} | tags).items():
            part.GetMetaDataDictionary()[tag] = value(k) if callable(value) else value
        writer = itk.GDCMImageIO.New()
        writer.KeepOriginalUIDOn()
        itk.imwrite(part, str(folder / name.format(number=number, k=k)), imageio=writer)


def write_frames(path, array, affine, order):
    """The slices (x, y, slice) as frames of one enhanced MR file, in this order; the affine's z is 100 mm and k."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    part = itk.image_from_array(np.ascontiguousarray(array[..., order].T).astype(np.int16))
    part.SetSpacing([float(mm) for mm in nib.affines.voxel_sizes(lps)])
    part.SetOrigin([float(mm) for mm in lps[:3, 3]])
    for tag, value in {"0008|0016": "1.2.840.10008.5.1.4.1.1.4.1", "0008|0060": "MR"}.items():
        part.GetMetaDataDictionary()[tag] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.imwrite(part, str(path), imageio=itk.GDCMImageIO.New())
    places = iter(order)  # ITK writes positions as if the frames followed each other
    position = rb"(\x20\x00\x32\x00..\x00\x00[^\\]+\\[^\\]+\\)\d{3}"
    made = re.sub(position, lambda old: old[1] + b"%d" % (100 + next(places)), path.read_bytes(), flags=re.DOTALL)
    path.write_bytes(made)


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


VOXELS = np.random.default_rng(0).integers(1, 900, (12, 10, 9)).astype(np.int16)
EVEN = np.arange(9)


def oblique(spacing=(0.9, 0.9, 1.2), angle=17, origin=(-33.37, 20.12, 5)):
    """The affine (to RAS, mm) of a grid turned about two axes."""
    turns = [nib.eulerangles.euler2mat(*(np.radians(angle) * np.eye(3)[axis])) for axis in (0, 2)]
    return nib.affines.from_matvec(turns[0] @ turns[1] @ np.diag([-1, -1, 1]) @ np.diag(spacing), origin)


@pytest.mark.parametrize(
    ("affine", "tags"),
    [
        (oblique(angle=0, spacing=(1, 1, 0.9)), {}),
        (oblique(angle=0, spacing=(1, 1, 1.2)), {}),
        (oblique(angle=0, spacing=(1, 1, 1), origin=(0.37, 0.37, 0.37)), {}),
        (oblique(), {}),
        (oblique(angle=71, spacing=(0.5, 0.7, 3.3)), {}),
        (oblique(angle=90), {"0020|0013": lambda k: str(50 - k)}),  # instance numbers against the positions
        (oblique(), {"name": "{k:03}", "0008|0032": lambda k: f"10000{k}"}),  # no ending, another time for each slice
    ],
)
def test_a_series_on_any_even_grid_has_its_voxels_and_its_place(tmp_path, affine, tags):
    write_slices(tmp_path / "T1", VOXELS, affine, EVEN, **tags)
    data, read, _ = read_series(str(tmp_path / "T1"))
    assert np.array_equal(data, VOXELS) and np.allclose(read, affine, atol=1e-4)


@pytest.mark.parametrize("order", [range(9), [8, 7, 6, 5, 4, 3, 2, 1, 0], [4, 0, 8, 1, 7, 2, 6, 3, 5]])
def test_frames_of_an_enhanced_file_are_sorted_by_their_positions(tmp_path, order):
    affine = nib.affines.from_matvec(np.diag([-0.9, -0.7, 1]), [10, 20, 100])
    write_frames(tmp_path / "T1" / "1.dcm", VOXELS, affine, list(order))
    data, read, _ = read_series(str(tmp_path / "T1"))
    assert np.array_equal(data, VOXELS) and np.allclose(read, affine)


TILT = np.tan(np.radians(12)) * 1.2 * np.array([0, 1, 0])


@pytest.mark.parametrize(
    ("places", "more", "message"),
    [
        ([0, 1, 2, 3, 5, 6, 7, 8, 9], {}, "slices missing .'1-003.dcm' and '1-004.dcm' are 2.40 mm apart, others 1.20"),
        ([0, 1, 2, 3, 4.3, 5, 6, 7, 8], {}, r"unevenly spaced .0.84 to 1.56 mm apart.; export it evenly"),
        ([0, 1, 2, 3, 4, 4, 5, 6, 7], {}, "contains a slice twice .'1-004.dcm' and '1-005.dcm'.; remove one"),
        (
            EVEN // 2,
            {"0018|0081": lambda k: ("10", "90")[k % 2]},
            "contains several scans in one series .*EchoTime 10 and 90.; keep the files of one",
        ),
        (EVEN % 3, {"0020|0012": lambda k: str(k // 3)}, "AcquisitionNumber 0 and 1.; keep the files of one"),
        (EVEN, {"shift": TILT}, r"shifted sideways by up to 2.0 mm .gantry tilt 12.0°.; convert it with dcm2niix"),
    ],
)
def test_a_series_that_makes_no_even_grid_is_refused_with_the_reason_and_the_fix(tmp_path, places, more, message):
    write_slices(tmp_path / "T1", VOXELS, oblique(angle=0), places, **more)
    with pytest.raises(InputError, match=message):
        read_series(str(tmp_path / "T1"))


def without(tag):
    """Delete an element of explicit little-endian DICOM with a short length: its number becomes that of another one."""
    key = b"".join(int(part, 16).to_bytes(2, "little") for part in tag.split("|"))
    return lambda raw: raw.replace(key, key[:2] + b"\xfe\xff", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("0020|0032"), "does not say where its slices lie .'1-000.dcm' has no ImagePositionPatient"),
        (without("0020|0037"), "does not say where its slices lie .'1-000.dcm' has no ImageOrientationPatient"),
        (without("0028|0030"), "does not say where its slices lie .'1-000.dcm' has no PixelSpacing"),
        (lambda raw: raw.replace(b"MONOCHROME2", b"MONOCHROME1"), "stores black as the highest value .*MONOCHROME1"),
        (lambda raw: raw[:-20], "1-000.dcm' is an incomplete or damaged DICOM image; export the series again"),
        (lambda raw: raw[: raw.index(b"\xe0\x7f\x10\0")], "is an incomplete or damaged DICOM image"),
        (lambda raw: raw.replace(b"\x28\0\x10\0\2\0\0\0\x0a\0", b"\x28\0\x10\0\2\0\0\0\x0b\0"), "more or fewer pixels"),
    ],
    ids=["position", "orientation", "spacing", "inverted", "cut", "no pixels", "rows"],
)
def test_a_file_without_what_a_place_needs_or_without_pixels_is_refused(change, message, tmp_path):
    write_slices(tmp_path / "T1", VOXELS, oblique(angle=0), EVEN)
    for path in (tmp_path / "T1").iterdir():
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message) as error:
        read_series(str(tmp_path / "T1"))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("kind", ["JPEG2000", "JPEG"])
def test_compressed_slices_have_the_same_voxels(kind, tmp_path):
    folder = tmp_path / "T1"
    write_slices(folder, VOXELS, oblique(), EVEN)
    codec = getattr(itk.GDCMImageIOEnums, f"Compression_{kind}")

    def compress(path):
        image = itk.imread(str(path), imageio=itk.GDCMImageIO.New())
        writer = itk.GDCMImageIO.New()
        writer.KeepOriginalUIDOn()
        writer.SetCompressionType(codec)
        itk.imwrite(image, str(path), imageio=writer, compression=True)

    before = locale.setlocale(locale.LC_ALL)
    for path in sorted(folder.iterdir()):
        compress(path)
    locale.setlocale(locale.LC_ALL, before)  # which ITK changes where it compresses
    data, affine, _ = read_series(str(folder))
    assert np.array_equal(data, VOXELS) and np.allclose(affine, oblique(), atol=1e-4)
    assert locale.setlocale(locale.LC_ALL) == before


def test_slices_with_scales_of_their_own_get_their_own_values(tmp_path):
    scale = {"0028|1053": lambda k: str(k + 1), "0028|1052": lambda k: str(-k)}
    write_slices(tmp_path / "T1", VOXELS, oblique(), EVEN)
    read_series(str(tmp_path / "T1"))  # a process that has read no file yet writes none with scales
    write_slices(tmp_path / "T1", VOXELS, oblique(), EVEN, **scale)
    stored = [itk.array_from_image(itk.imread(str(path))) for path in sorted((tmp_path / "T1").iterdir())]
    data, _, _ = read_series(str(tmp_path / "T1"))
    assert all(np.array_equal(data[..., k].T, one[0]) for k, one in enumerate(stored))


def test_other_files_among_the_slices_are_passed_over(tmp_path):
    write_slices(tmp_path / "T1", VOXELS, oblique(), EVEN)
    (tmp_path / "T1" / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (tmp_path / "T1" / "._1-000.dcm").write_bytes(b"\0\5\x16\7")
    (tmp_path / "T1" / "report.txt").write_text("no tumour")
    (tmp_path / "T1" / "empty.dcm").touch()
    data, _, _ = read_series(str(tmp_path / "T1"))
    assert np.array_equal(data, VOXELS)


def test_a_series_that_states_too_many_voxels_is_refused(tmp_path, monkeypatch):
    write_slices(tmp_path / "T1", VOXELS, oblique(), EVEN)
    monkeypatch.setattr("tumour.scans.series.MOST", 1000)
    with pytest.raises(InputError, match="states 1,080 voxels, and a scan may have 1,000"):
        read_series(str(tmp_path / "T1"))


def test_a_localizer_is_refused_for_its_orientations(tmp_path):
    write_slices(tmp_path / "T1", VOXELS, oblique(angle=0), EVEN)
    write_slices(tmp_path / "T1", VOXELS, oblique(angle=90), EVEN, name="other-{k}.dcm")
    with pytest.raises(InputError, match="slices of several orientations, like a localizer"):
        read_series(str(tmp_path / "T1"))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1, 2, 4, 5, 6, 7, 8], "has slices missing"),
        ([0, 1, 2, 3, 3, 4, 5, 6], "has two frames at one place, as several echoes"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "has 8 frames, but not a position for each; convert it with dcm2niix"),
    ],
)
def test_frames_that_make_no_even_grid_or_have_no_position_are_refused(tmp_path, order, message):
    file = tmp_path / "T1" / "1.dcm"
    write_frames(file, VOXELS, nib.affines.from_matvec(np.diag([-0.9, -0.7, 1]), [10, 20, 100]), order)
    if "position" in message:
        file.write_bytes(file.read_bytes().replace(b"\x20\0\x32\0", b"\x20\0\x33\0", 1))
    with pytest.raises(InputError, match=message):
        read_series(str(file.parent))


@pytest.mark.parametrize(
    ("what", "tag", "other"),
    [
        ("orientation", b"\x20\0\x37\0", b"1\\0\\0\\0\\0\\1"),
        ("spacing", b"\x28\0\x30\0", b".9\\.9"),
        ("RescaleSlope", b"\x28\0\x53\x10", b"2"),
        ("RescaleIntercept", b"\x28\0\x52\x10", b"5"),
    ],
)
def test_frames_with_places_or_scales_of_their_own_are_refused(what, tag, other, tmp_path):
    """ITK would give all of them the place and the scale of the first."""
    file = tmp_path / "T1" / "1.dcm"
    write_frames(file, VOXELS, nib.affines.from_matvec(np.diag([-0.9, -0.7, 1]), [10, 20, 100]), EVEN)
    before, _, after = file.read_bytes().partition(tag)
    size = int.from_bytes(after[:4], "little")
    first = tag + after[: 4 + size]
    file.write_bytes(before + first + first[:8] + other.ljust(size) + after[4 + size :])
    with pytest.raises(InputError, match=f"1.dcm' has frames that differ in {what}; convert it with dcm2niix"):
        read_series(str(file.parent))


def touch_series(*folders):
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "1").write_bytes(bytes(128) + b"DICM")


@pytest.mark.parametrize(
    "folders",
    [
        ["T1", "T1ce", "T2", "FLAIR"],
        ["AX_T1", "AX_T1_POST", "AX_T2", "AX_T2_FLAIR"],
        ["T1/DICOM", "T1GD/DICOM", "T2/IMAGES", "flair/DICOM"],
        ["2_t1_mprage_sag", "9-t1_mprage_sag+C", "4-t2_tse_tra", "7-FLAIR_AX"],
        ["scans/5-T1w/resources/DICOM/files", "scans/6-T1w_Gd/resources/DICOM/files", "scans/7-T2w", "scans/8-FLAIR"],
        ["T1 3D", "T1 KM 3D", "t2_space", "t2_tirm_tra_dark-fluid"],
        ["T1", "T1ce", "T2", "FLAIR", "AX_T1", "LOCALIZER", "T2_STAR", "ADC"],  # the exact name, and others
    ],
)
def test_folders_named_as_scanners_export_them_are_found(tmp_path, folders):
    touch_series(*(tmp_path / case / folder for case in ("P1", "P2") for folder in folders))
    found = series_cases(tmp_path, SERIES, FOUR)
    assert [case.name for case in found.complete] == ["P1", "P2"] and not found.left_out
    assert found.complete[1].images == tuple(str(tmp_path / "P2" / folder) for folder in folders[:4])


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["AX_PD", "T2_STAR"], r"P1: it has no series of T1, T1ce, T2, FLAIR, but DICOM in '.*AX_PD', '.*T1 \(t1, "),
        (["T1", "T1ce", "FLAIR", "T2_STAR"], r"no series of T2, but DICOM in '.*T2_STAR'; name the folders .* T2 \(t2"),
        (
            ["AX_T1", "SAG_T1", "T1ce", "T2", "FLAIR"],
            "AX_T1' and '.*SAG_T1' are both named as T1; rename",
        ),
        (["all"], "no series of T1, T1ce, T2, FLAIR, but DICOM in '.*all'"),
    ],
)
def test_dicom_folders_that_cannot_be_assigned_are_named(tmp_path, folders, message):
    touch_series(*(tmp_path / "P1" / folder for folder in folders))
    with pytest.raises(InputError, match=message):
        find_scans(str(tmp_path), COHORTS["brats2021"], FOUR, COHORTS, SERIES, 0)


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
    found = series_cases(folder, SERIES, FOUR)
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
    found = series_cases(tmp_path / "two", SERIES, ["T1", "T1ce"])
    assert [case.name for case in found.complete] == ["P1_20240101", "P2_20240101"]
    check = CaseCheck(COHORTS["brats2021"], COHORTS, ["T1", "T1ce"])
    assert [finding.faults for finding in map(check, found.complete)] == [[], []]
    mixed = replace(found.complete[0], images=(found.complete[0].images[0], found.complete[1].images[1]))
    assert any("is from patient P1, " in fault and "from patient P2" in fault for fault in check(mixed).faults)


def test_two_series_in_a_folder_missing_slices_and_unregistered_series_are_reported(scans):
    folder, cases = scans
    case = folder / cases[0].name
    with pytest.raises(InputError, match="is a folder without a DICOM series"):
        read_series(str(folder))
    write_series(cases[1].images[0], case / "T1", 99)
    with pytest.raises(InputError, match="T1' has 2 DICOM series; keep only the one"):
        read_series(str(case / "T1"))
    sorted((case / "T2").iterdir())[20].unlink()
    with pytest.raises(InputError, match="T2' has slices missing .* are 2.00 mm apart, others 1.00 mm"):
        read_series(str(case / "T2"))


def test_dicom_is_segmented_on_its_own_grid_and_unusable_cases_are_reported(scans, patients, tmp_path):
    folder, cases = scans
    third = folder / "unregistered"
    for name, path in zip(FOUR, cases[2].images, strict=True):
        write_series(path, third / name, 50 + len(name), slice(0, 30) if name == "T1ce" else slice(None))
    succeed("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), epochs=1, modality_dropout=0)
    done = run("inferring", BUNDLES[0], tmp_path, "brats2021", folder)
    made = nib.load(tmp_path / "results" / "segmentations" / f"{cases[0].name}.nii.gz")
    scan = nib.load(cases[0].images[0])
    assert np.allclose(made.affine, scan.affine) and made.shape == scan.shape and made.get_data_dtype() == np.uint8
    assert made.header["qform_code"] == made.header["sform_code"] == 1 and made.header.get_xyzt_units()[0] == "mm"
    assert done.returncode == 1 and "1 of 3 cases segmented" in done.stdout
    assert f"{cases[1].name}: it has no series of T2; add it or use fewer modalities (the network" in done.stdout
    assert "has the shape (40, 40, 30)" in done.stdout and "(40, 40, 40)" in done.stdout
