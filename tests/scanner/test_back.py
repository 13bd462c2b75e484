"""A label map returns to the scans of a patient: the same tumour at the same place, as NIfTI and as DICOM SEG."""

import shutil
import subprocess
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from tumour.cases.case import Case
from tumour.errors import CaseError, InputError
from tumour.files import save_json
from tumour.scanner.back import bring_back, on_scan, scans_to_return_to, segmentation, write_on_scan
from tumour.scanner.prepare import ATLAS, RECORD, Prepared
from tumour.scanner.register import moved
from tumour.scans.grid import Scan
from tumour.scans.series import read_series

from tests.cohorts import COHORTS
from tests.scanner.heads import ellipsoid, motion, needs, points
from tests.scans.test_dicom import oblique, write_frames, write_slices

COHORT = COHORTS["brats2021"]
GRID = Scan(
    "atlas",
    np.zeros((110, 100, 90), np.uint8),
    np.array([[-1.0, 0, 0, 50], [0, -1, 0, 45], [0, 0, 1, -40], [0, 0, 0, 1]]),
)


def tumour(scan):
    """Oedema around a ring of enhancement around necrosis, on a grid."""
    mm = points(scan.affine, scan.shape)
    data = np.zeros(scan.shape, np.uint8)
    for position, radii in ((2, (28, 24, 20)), (3, (19, 16, 14)), (1, (11, 9, 8))):
        data[ellipsoid(mm, (6, -4, 5), radii)] = position
    return replace(scan, data=data)


def dice(one, other, positions):
    one, other = np.isin(one, positions), np.isin(other, positions)
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize(
    "native",
    [
        nib.affines.from_matvec(motion((12, -9, 25))[:3, :3] @ np.diag([-1, -1, 1.0]), (55, 60, -60)),
        nib.affines.from_matvec(motion((-20, 5, 10))[:3, :3] @ np.diag([-0.9, -0.9, 3.0]), (50, 75, -45)),
    ],
)
def test_a_label_map_brought_to_a_scan_and_back_is_the_same(native):
    grid, label = Scan("native", np.zeros((130, 130, 110 if native[2, 2] < 2 else 40), np.uint8), native), tumour(GRID)
    there = replace(grid, data=on_scan(label, grid, 4))
    for positions in ([1, 2, 3], [1, 3]):
        assert dice(there.data, tumour(grid).data, positions) > 0.95
        assert dice(on_scan(there, GRID, 4), label.data, positions) > 0.95


def test_a_label_map_on_its_own_grid_is_unchanged():
    label = tumour(GRID)
    assert np.array_equal(on_scan(label, GRID, 4), label.data)


@pytest.mark.parametrize(("shift", "first"), [(0.4, 5), (0.6, 4)])
def test_a_voxel_of_a_scan_gets_the_class_of_its_larger_part(shift, first):
    label = Scan("label", np.zeros((12, 8, 8), np.uint8), np.eye(4))
    label.data[5:9] = 2
    grid = replace(label, affine=nib.affines.from_matvec(np.eye(3), (shift, 0, 0)))
    expected = np.zeros((12, 8, 8), np.uint8)
    expected[first : first + 4] = 2
    assert np.array_equal(on_scan(label, grid, 4), expected)


def record_of(path, scan, pose):
    files, shapes = {"T1ce": [str(path)]}, {"T1ce": list(scan.shape)}
    return Prepared("", files, shapes, {"T1ce": scan.affine.tolist()}, {"T1ce": pose.tolist()}, ATLAS)


def test_the_result_has_the_header_of_the_scan_and_the_values_of_the_cohort(tmp_path):
    pose = motion((10, 5, -20), (12, 3, 4))
    native = moved(GRID, np.linalg.inv(pose))  # the pose brings it to the atlas grid
    nib.save(nib.Nifti1Image(native.data, native.affine), tmp_path / "raw.nii.gz")
    case = Case("P1", "P1", (str(tmp_path / "prepared" / "P1" / "P1_t1.nii.gz"),), ("T1",))
    save_json(vars(record_of(tmp_path / "raw.nii.gz", native, pose)), tmp_path / "prepared" / "P1" / RECORD)
    (tmp_path / "maps").mkdir()
    label = tumour(GRID)
    nib.save(nib.Nifti1Image(COHORT.to_values(label.data), label.affine), tmp_path / "maps" / "P1.nii.gz")
    folders = str(tmp_path / "prepared"), str(tmp_path / "maps"), str(tmp_path / "native")
    assert bring_back([case], *folders, ["T1ce"], COHORT, "1.0") == []
    written = nib.load(tmp_path / "native" / "P1_T1ce.nii.gz")
    assert np.allclose(written.affine, native.affine, atol=1e-4)
    assert np.array_equal(np.asarray(written.dataobj), COHORT.to_values(label.data))
    with pytest.raises(InputError, match="give the folder that `run preparing` wrote"):
        bring_back([replace(case, images=("elsewhere/x.nii.gz",))], *folders, ["T1ce"], COHORT, "1.0")
    nib.save(nib.Nifti1Image(native.data[1:], native.affine), tmp_path / "raw.nii.gz")
    (left_out,) = bring_back([case], *folders, ["T1ce"], COHORT, "1.0")
    assert "has another shape than when it was prepared" in str(left_out)
    (tmp_path / "raw.nii.gz").unlink()
    (left_out,) = bring_back([case], *folders, ["T1ce"], COHORT, "1.0")
    assert str(left_out).startswith("P1: ") and "does not exist any more" in str(left_out)


def test_a_result_is_returned_only_to_scans_that_the_cohort_has():
    assert scans_to_return_to(["T2", "T1ce"], COHORT) == ["T2", "T1ce"]
    with pytest.raises(InputError, match="back_to has T3; it takes T1, T1ce, T2, FLAIR"):
        scans_to_return_to(["T1", "T3"], COHORT)


def test_a_scan_whose_ending_is_in_upper_case_is_no_dicom(tmp_path):
    native = replace(GRID, data=np.zeros(GRID.shape, np.int16))
    nib.save(nib.Nifti1Image(native.data, native.affine), tmp_path / "raw.nii.gz")
    scan = (tmp_path / "raw.nii.gz").rename(tmp_path / "RAW.NII.GZ")
    write_on_scan(tumour(GRID).data, record_of(scan, native, np.eye(4)), "P1", "T1ce", COHORT, tmp_path / "out", "1.0")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["P1_T1ce.nii.gz"]


PATIENT = {"0010|0020": "P1", "0010|0010": "A^B", "0020|0010": "1", "0020|0011": "5", "0008|0020": "20260101"}
PATIENT |= {"0008|0030": "101010", "0008|0050": "A1", "0010|0030": "19700101", "0010|0040": "O", "0008|0090": "y"}
PATIENT |= {"0020|0052": "1.2.826.0.1.3680043.2.1125.9"}


def study(folder, tags=PATIENT):
    """A DICOM series and a label map on its grid, as `read_series` gives it."""
    voxels = np.random.default_rng(0).integers(1, 900, (40, 36, 20)).astype(np.int16)
    write_slices(folder, voxels, oblique(spacing=(1.1, 1.1, 2.5)), range(20), **tags)
    data, affine, _ = read_series(str(folder))
    classes = np.zeros(data.shape, np.uint8)
    classes[5:20, 6:22, 4:12], classes[8:16, 9:18, 6:10], classes[10:12, 12:14, 7:9] = 2, 3, 1
    return classes, affine, sorted(folder.iterdir(), reverse=True)  # in any order


@needs("highdicom", "pydicom")
def test_a_dicom_seg_has_every_voxel_at_its_place_and_refers_to_the_series(tmp_path):
    from highdicom.seg import segread
    from pydicom import dcmread

    classes, affine, files = study(tmp_path / "series")
    native = Scan("x", classes, affine)
    record = replace(record_of(files[0], native, np.eye(4)), files={"T1ce": [str(file) for file in files]})
    write_on_scan(classes, record, "P1", "T1ce", COHORT, tmp_path, "1.2.3")
    written = segread(tmp_path / "P1_T1ce.dcm")
    source = dcmread(files[0])
    assert written.PatientID == "P1" and written.StudyInstanceUID == source.StudyInstanceUID
    (series,) = written.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    listed = {each.ReferencedSOPInstanceUID for each in series.ReferencedInstanceSequence}
    assert listed == {dcmread(file).SOPInstanceUID for file in files}
    names = {segment.SegmentNumber: segment.SegmentLabel for segment in written.SegmentSequence}
    assert names == {1: "necrotic", 2: "oedema", 3: "enhancing"}
    codes = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in written.SegmentSequence]
    assert [(code.CodingSchemeDesignator, code.CodeValue) for code in codes] == [
        ("SCT", "6574001"),
        ("SCT", "79654002"),
        ("SCT", "108369006"),
    ]
    assert all(segment.TrackingUID and "P1" in segment.TrackingID for segment in written.SegmentSequence)
    assert "not for clinical use" in written.SeriesDescription and written.SoftwareVersions == "1.2.3"
    volume = written.get_volume(combine_segments=True)
    places = np.argwhere(volume.array)
    lps = np.diag([-1, -1, 1, 1]) @ volume.affine
    where = nib.affines.apply_affine(np.linalg.inv(affine) @ lps, places)
    assert np.allclose(where, where.round(), atol=0.01) and len(places) == np.count_nonzero(classes)
    assert np.array_equal(classes[tuple(where.round().astype(int).T)], volume.array[tuple(places.T)])

    write_on_scan(np.zeros_like(classes), record, "P1", "T1ce", COHORT, tmp_path, "1.2.3")
    assert not (tmp_path / "P1_T1ce.dcm").exists()  # that of an earlier run would show a tumour


FRAMES = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 100], [0, 0, 0, 1]])


@needs("highdicom", "pydicom")
def test_a_dicom_seg_of_a_file_with_frames_in_any_order_has_every_voxel_at_its_place(tmp_path):
    voxels = np.random.default_rng(0).integers(1, 900, (14, 12, 9)).astype(np.int16)
    write_frames(tmp_path / "frames" / "x.dcm", voxels, FRAMES, [3, 1, 2, 0, 4, 8, 6, 7, 5])
    data, _, _ = read_series(str(tmp_path / "frames"))
    classes = np.zeros(data.shape, np.uint8)
    classes[3:6, 2:9, 2], classes[4:9, 3:7, 5] = 2, 3
    result = segmentation(classes, [tmp_path / "frames" / "x.dcm"], "P1", COHORT, "1.0")
    for frame, item in zip(result.pixel_array, result.PerFrameFunctionalGroupsSequence, strict=True):
        k = round(item.PlanePositionSequence[0].ImagePositionPatient[2]) - 100
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert np.array_equal(frame > 0, classes[..., k].T == number + 1) and frame.any()
    (shared,) = result.SharedFunctionalGroupsSequence
    assert shared.PixelMeasuresSequence[0].SliceThickness == 1  # which the file does not state


@needs("highdicom", "pydicom")
@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy of dicom3tools in PATH")
@pytest.mark.parametrize("kind", ["complete", "bare", "frames"])
def test_a_dicom_seg_follows_the_standard(kind, tmp_path):
    if kind == "frames":
        classes = np.zeros((14, 12, 9), np.uint8)
        classes[3:6, 2:9, 2], classes[4:9, 3:7, 5] = 2, 3
        write_frames(tmp_path / "x.dcm", np.ones(classes.shape), FRAMES, range(9))
        files = [tmp_path / "x.dcm"]
    else:
        classes, _, files = study(tmp_path / "series", PATIENT if kind == "complete" else {})
    segmentation(classes, files, "P1", COHORT, "1.0").save_as(tmp_path / "result.dcm")
    done = subprocess.run(["dciodvfy", "-new", tmp_path / "result.dcm"], capture_output=True, text=True)
    assert "Segmentation" in done.stderr.splitlines() and "Error" not in done.stderr, done.stderr


@needs("highdicom", "pydicom")
def test_what_a_series_lacks_is_filled_or_named_in_one_sentence(tmp_path):
    write_slices(tmp_path / "bare", np.ones((14, 12, 9)), oblique(), range(9))
    files = sorted((tmp_path / "bare").iterdir())
    classes = np.zeros((14, 12, 9), np.uint8)
    classes[3:6, 2:9, 2:5] = 2
    assert segmentation(classes, files, "P1", COHORT, "1.0").Modality == "SEG"
    with pytest.raises(CaseError, match="no DICOM SEG of it can be written .*, only NIfTI"):
        segmentation(classes[:-1], files, "P1", COHORT, "1.0")


@needs("pynetdicom", "highdicom", "pydicom")
def test_a_study_is_received_and_its_result_sent_back_by_dicom(tmp_path):
    """Both directions go through a storage server on this machine: the study in, the DICOM SEG out."""
    from pydicom import dcmread
    from pynetdicom import AE, StoragePresentationContexts, evt

    received = {"series": tmp_path / "received", "result": tmp_path / "archive"}

    def store(event, folder):
        event.dataset.file_meta = event.file_meta
        folder.mkdir(exist_ok=True)
        event.dataset.save_as(folder / f"{event.dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    def send(files, folder):
        server = AE(ae_title="ARCHIVE")
        server.supported_contexts = StoragePresentationContexts
        running = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store, [folder])])
        client = AE()
        images = [dcmread(file) for file in files]
        for image in images:
            client.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
        link = client.associate("127.0.0.1", running.socket.getsockname()[1], ae_title="ARCHIVE")
        assert link.is_established
        assert all(link.send_c_store(image).Status == 0 for image in images)
        link.release()
        running.shutdown()

    classes, affine, files = study(tmp_path / "scanner")
    send(files, received["series"])
    data, again, patient = read_series(str(received["series"]))
    assert data.shape == classes.shape and np.allclose(again, affine) and patient == "P1"
    result = segmentation(classes, list(received["series"].iterdir()), "P1", COHORT, "1.0")
    result.save_as(tmp_path / "result.dcm")
    send([tmp_path / "result.dcm"], received["result"])
    (stored,) = received["result"].iterdir()
    back = dcmread(stored)
    assert back.Modality == "SEG" and np.array_equal(back.pixel_array, result.pixel_array)
