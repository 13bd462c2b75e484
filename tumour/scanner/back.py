"""Bring label maps back to the scans of a patient: NIfTI, and DICOM SEG where the scan is a DICOM series."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tumour.cases.case import Case, LeftOut
from tumour.cases.folder import folders_below
from tumour.cases.series import is_dicom
from tumour.cohort import Cohort, is_nifti
from tumour.errors import CaseError, InputError, OptionError
from tumour.files import atomic_write
from tumour.maps.writer import save_on_scan
from tumour.processes import rank
from tumour.scanner.extra import require
from tumour.scanner.prepare import RECORD, Prepared
from tumour.scanner.register import on_grid
from tumour.scans.grid import Scan
from tumour.scans.nifti import read_header
from tumour.scans.readers import read_classes

logger = logging.getLogger("bundle")
RESEARCH = "For research, not for clinical use"
CODES = {"necrotic": "Necrosis", "oedema": "Edema", "enhancing": "Neoplasm"}  # SNOMED CT, as pydicom names them
SOFTWARE = "brain tumour bundles"
# may be missing in a series, but only empty in a DICOM SEG
EMPTY = """PatientID PatientName PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber
    ReferringPhysicianName""".split()
ANY_CODE = "MorphologicallyAbnormalStructure"


def on_scan(label: Scan, grid: Scan, count: int) -> NDArray[np.uint8]:
    """A label map on another grid (x, y, z): the class with the largest share of each voxel.

    Args:
        label: positions of classes.
        grid: the grid of the scan, at its place among the prepared scans.
        count: number of classes.
    """
    shares = [on_grid(replace(label, data=label.data == position), grid) for position in range(1, count)]
    background = 1 - np.sum(shares, axis=0)
    return np.argmax([background, *shares], axis=0).astype(np.uint8)


def scans_to_return_to(modalities: Sequence[str], cohort: Cohort) -> Sequence[str]:
    """The modalities on whose scans label maps are written.

    Raises:
        OptionError: the cohort lacks one.
    """
    if unknown := set(modalities) - set(cohort.modalities):
        raise OptionError(f"back_to has {', '.join(sorted(unknown))}; it takes {', '.join(cohort.modalities)}.")
    return modalities


def require_writer(folders: Iterable[Path]) -> None:
    """Refuse to begin without the package that writes DICOM SEG, where folders contain DICOM files.

    Raises:
        InputError: highdicom is missing.
    """
    if any(is_dicom(inner / name) for each in folders for inner, names in folders_below(each) for name in names):
        require("highdicom")


def bring_back(
    cases: Sequence[Case],
    dataset_dir: str,
    segmentations: str,
    native_dir: str,
    modalities: Sequence[str],
    cohort: Cohort,
    version: str,
) -> list[LeftOut]:
    """Write the label map of each prepared case on the grids of the patient's own scans.

    `<case>_<modality>.nii.gz` has the label values of the cohort and the header of the scan; `<case>_<modality>.dcm` is
    a DICOM SEG that refers to the series, if the scan is one.

    Args:
        cases: prepared cases.
        dataset_dir: the folder of the prepared cases, for the message.
        segmentations: folder of the label maps.
        native_dir: where to write.
        modalities: the scans on whose grids label maps are written.
        cohort: the meaning of the label maps.
        version: of the bundle, for the DICOM SEG.

    Returns:
        The cases whose label map cannot be brought back, with the reason.

    Raises:
        InputError: highdicom is missing, or no case was prepared.
    """
    if rank():
        return []
    prepared = [case for case in cases if (Path(case.images[0]).parent / RECORD).is_file()]
    if cases and not prepared:
        raise InputError(f"'{dataset_dir}' has no {RECORD}; give the folder that `run preparing` wrote.")
    left_out = []
    for case in prepared:
        try:
            record, label = _read(case, segmentations, cohort)
            for modality in modalities:
                require_files(record, modality)
                classes = on_scan(label, record.grid(modality), len(cohort.classes))
                write_on_scan(classes, record, case.name, modality, cohort, Path(native_dir), version)
        except CaseError as error:
            left_out.append(LeftOut(case.name, str(error)))
    count = len(prepared) - len(left_out)
    logger.info(f"{count} label maps on the patients' own scans; see '{native_dir}'. {RESEARCH}.")
    return left_out


def _read(case: Case, segmentations: str, cohort: Cohort) -> tuple[Prepared, Scan]:
    try:
        record = Prepared.read(Path(case.images[0]).parent / RECORD)
        return record, read_classes(f"{segmentations}/{case.name}.nii.gz", cohort)
    except InputError as error:
        raise CaseError(str(error).rstrip(".")) from error


def require_files(record: Prepared, modality: str) -> None:
    """Refuse to return to files that are not those that were prepared.

    Raises:
        CaseError: a file is missing, or has another shape.
    """
    again = "restore it, or delete the prepared case and prepare it again"
    for file in record.files[modality]:
        if not Path(file).is_file():
            raise CaseError(f"'{file}' does not exist any more; {again}")
        if is_nifti(file) and list(read_header(file).get_data_shape()[:3]) != list(record.shapes[modality]):
            raise CaseError(f"'{file}' has another shape than when it was prepared; {again}")


def write_on_scan(
    classes: NDArray[np.uint8], record: Prepared, case: str, modality: str, cohort: Cohort, folder: Path, version: str
) -> None:
    """Write a label map that is on the grid of a scan, as positions in the cohort's classes."""
    files = [Path(file) for file in record.files[modality]]
    is_series = not is_nifti(files[0].name)
    affine, name = np.array(record.affines[modality]), folder / f"{case}_{modality}"
    source = files[0].parent if is_series else files[0]
    save_on_scan(cohort.to_values(classes), source, affine, name.with_name(f"{name.name}.nii.gz"))
    target = name.with_name(f"{name.name}.dcm")
    target.unlink(missing_ok=True)  # of an earlier run
    if is_series and classes.any():  # a DICOM SEG has at least one segment
        result = segmentation(classes, files, case, cohort, version)
        with atomic_write(target) as part:
            result.save_as(part)


def segmentation(classes: NDArray[np.uint8], files: Sequence[Path], case: str, cohort: Cohort, version: str) -> Any:
    """A DICOM SEG of a label map, one segment per class, that refers to the series.

    Args:
        classes: positions in the cohort's classes (x, y, z), on the grid of the series as `read_slices` gives it.
        files: the files of the series, in any order.
        case: its name, from which the tracking ids of the segments are made.
        cohort: has the names of the classes.
        version: of the bundle.

    Raises:
        CaseError: the headers of the series do not suffice for a DICOM SEG.
        InputError: highdicom is missing.
    """
    require("highdicom")
    from highdicom import UID, AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    network = AlgorithmIdentificationSequence(SOFTWARE, codes.DCM.ArtificialIntelligence, version)
    present = np.flatnonzero(np.bincount(classes.ravel(), minlength=len(cohort.classes))[1:]) + 1
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=cohort.classes[position],
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=getattr(codes.SCT, CODES.get(cohort.classes[position], ANY_CODE)),
            algorithm_type="AUTOMATIC",
            algorithm_identification=network,
            tracking_id=f"{case} {cohort.classes[position]}",
            tracking_uid=UID(),
            anatomic_regions=[codes.SCT.Brain],
        )
        for number, position in enumerate(present, 1)
    ]
    numbers = np.zeros(len(cohort.classes), np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    slices = numbers[classes].transpose(2, 1, 0)  # (slice, row, column), by height
    try:
        images = [dcmread(file, stop_before_pixels=True) for file in files]
        heights = np.array([height for image in images for height in _heights(image)])
        if len(images) > 1:
            images = [images[index] for index in heights.argsort()]
        else:  # its frames are in any order
            slices = slices[heights.argsort().argsort()]
        complete(images, abs(float(np.diff(np.sort(heights))[0])))
        return Segmentation(
            source_images=images,
            pixel_array=slices,
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=UID(),
            series_number=int(images[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=UID(),
            instance_number=1,
            manufacturer=SOFTWARE,
            manufacturer_model_name=SOFTWARE,
            software_versions=version,
            device_serial_number="0",
            content_label="TUMOUR",
            content_description=RESEARCH,
            series_description=f"Brain tumour. {RESEARCH}",
        )
    except Exception as error:  # of many kinds, for headers that break the standard
        raise CaseError(f"no DICOM SEG of it can be written ({error}), only NIfTI; export its series again") from error


def complete(images: Sequence[Any], step: float) -> None:
    """Fill what may be missing or empty in a series, but not in a DICOM SEG; `step` is between slices, mm."""
    from highdicom import UID

    frame = UID()
    for image in images:
        for keyword in EMPTY:
            if keyword not in image:
                setattr(image, keyword, "")
        if not image.get("FrameOfReferenceUID"):
            image.FrameOfReferenceUID = frame
        for measures in _pixel_measures(image) if len(images) == 1 else [image]:
            if not measures.get("SliceThickness"):
                measures.SliceThickness = step


def _pixel_measures(image: Any) -> list[Any]:
    """The items of a file with frames that state the size of their voxels."""
    groups = *image.SharedFunctionalGroupsSequence, *image.PerFrameFunctionalGroupsSequence
    return [group.PixelMeasuresSequence[0] for group in groups if "PixelMeasuresSequence" in group]


def _heights(image: Any) -> list[float]:
    """The position of each slice of a file along the normal of the slices, by which `read_slices` sorts."""
    if "ImagePositionPatient" in image:
        return [_height(image.ImageOrientationPatient, image.ImagePositionPatient)]
    shared, heights = image.SharedFunctionalGroupsSequence[0], []
    for frame in image.PerFrameFunctionalGroupsSequence:
        plane = (frame if "PlaneOrientationSequence" in frame else shared).PlaneOrientationSequence[0]
        heights.append(_height(plane.ImageOrientationPatient, frame.PlanePositionSequence[0].ImagePositionPatient))
    return heights


def _height(orientation: Sequence[float], position: Sequence[float]) -> float:
    row, column = np.array(orientation, float).reshape(2, 3)
    return float(np.cross(row, column) @ np.array(position, float))
