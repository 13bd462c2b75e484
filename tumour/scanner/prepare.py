"""Prepare the scans of patients as BraTS did: on the atlas grid with 1 mm voxels, registered, without the skull."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Self

import nibabel as nib
import numpy as np
import torch
from tqdm import tqdm
from tumour.cases.case import Case, LeftOut
from tumour.cohort import Cohort
from tumour.errors import CaseError, InputError, OptionError, reason
from tumour.files import atomic_write, copy_file, save_json
from tumour.processes import processes
from tumour.records import read_json
from tumour.scanner.extra import require
from tumour.scanner.picture import PICTURE, picture
from tumour.scanner.register import FINE, Matrix, better_place, moved, on_grid, register, resampled, seen
from tumour.scanner.strip import LARGEST, SMALLEST, brain_of
from tumour.scanner.study import Names, Series, choose, patient_folders, series_of
from tumour.scans.grid import Mask, Scan, difference
from tumour.scans.readers import background_of

REFERENCE = "T1ce"  # the scan that the others are registered to
RECORD = "prepare.json"  # next to the files of a prepared case
SEEN = 0.8  # of the brain, in each scan
BRATS = (240, 240, 155)  # voxels of 1 mm
ATLAS = "the atlas"
PREPARED = {"patient": str, "files": {str: [str]}, "shapes": {str: [int]}, "registered_to": str}
PREPARED |= {name: {str: [[float]]} for name in ("affines", "motions")}
logger = logging.getLogger("bundle")


@dataclass(frozen=True)
class Prepared:
    """Where the scans of a prepared case come from.

    Args:
        patient: patient id of DICOM series, else empty.
        files: the NIfTI file or DICOM files of each modality.
        shapes: voxels of each (x, y, z).
        affines: (4, 4) of each, from voxels to mm (RAS).
        motions: (4, 4) of each, from its mm to those of the prepared scans.
        registered_to: what its T1ce was registered to: `the atlas`, or the T1ce of this case of the same patient; empty
            if the scans were copied unchanged.
    """

    patient: str
    files: Mapping[str, Sequence[str]]
    shapes: Mapping[str, Sequence[int]]
    affines: Mapping[str, Sequence[Sequence[float]]]
    motions: Mapping[str, Sequence[Sequence[float]]]
    registered_to: str

    @classmethod
    def of(
        cls,
        chosen: Mapping[str, Series],
        scans: Mapping[str, Scan],
        motions: Mapping[str, Matrix],
        registered_to: str,
    ) -> Self:
        return cls(
            patient_id(chosen),
            {name: [os.path.abspath(file) for file in series.files] for name, series in chosen.items()},
            {name: list(scan.shape) for name, scan in scans.items()},
            {name: scan.affine.tolist() for name, scan in scans.items()},
            {name: motion.tolist() for name, motion in motions.items()},
            registered_to,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        content = read_json(path, PREPARED)
        return cls(**{name: content[name] for name in PREPARED})

    def grid(self, modality: str) -> Scan:
        """The grid of a scan at its place among the prepared ones."""
        empty = np.broadcast_to(np.uint8(0), tuple(self.shapes[modality]))
        return moved(Scan(modality, empty, np.array(self.affines[modality])), np.array(self.motions[modality]))

    def scan(self, modality: str) -> Scan:
        """A scan, with its skull, at its place among the prepared ones.

        Raises:
            InputError: it cannot be read, or has another grid than when it was prepared.
        """
        files = tuple(self.files[modality])
        scan, grid = Series(files[0], files, modality).read(), self.grid(modality)
        scan = moved(scan, np.array(self.motions[modality]))
        if fault := difference(grid, scan):
            raise InputError(f"'{files[0]}' is not the scan that was prepared, because {fault}")
        return scan


def patient_id(chosen: Mapping[str, Series]) -> str:
    """The patient id of the DICOM series of a case, empty if it has none."""
    return max(series.patient for series in chosen.values())


def atlas_head(grid: Scan, motion: Sequence[Sequence[float]]) -> Scan:
    """The mean head of pydeface (Gulban et al.) on the atlas grid.

    Args:
        grid: the grid of BraTS.
        motion: (4, 4), from the head's mm to those of the grid.

    Raises:
        InputError: pydeface is missing.
    """
    require("pydeface")
    image: Any = nib.load(str(distribution("pydeface").locate_file("pydeface/data/mean_reg2mean.nii.gz")))
    head = Scan(ATLAS, np.asarray(image.dataobj).squeeze(), np.asarray(image.affine, float))
    return replace(grid, path=ATLAS, data=on_grid(moved(head, np.array(motion, float)), grid))


def brats_grid(affine: Sequence[Sequence[float]]) -> Scan:
    """The grid of BraTS, without values."""
    return Scan(ATLAS, np.broadcast_to(np.uint8(0), BRATS), np.array(affine, float))


def is_prepared(scans: Mapping[str, Scan]) -> bool:
    """Whether all scans are on one grid and without skull: what is not background has the size of a brain."""
    first = next(iter(scans.values()))
    return all(scan.data.ndim == 3 and not difference(first, scan) and _is_stripped(scan) for scan in scans.values())


def _is_stripped(scan: Scan) -> bool:
    ml = np.count_nonzero(scan.data != background_of(scan.data)) * np.prod(scan.spacing) / 1000
    return bool(SMALLEST <= ml <= LARGEST)


def register_all(scans: Mapping[str, Scan], fixed: Scan, same: bool) -> dict[str, Matrix]:
    """The motion of each scan to the place of a fixed head: T1ce to that head, the others to T1ce.

    Args:
        scans: heads of one patient, by modality.
        fixed: a head in the pose of the atlas; its path is its name in the message.
        same: whether it is of this patient, so that swapped sides and less motion can be found.

    Raises:
        CaseError: it failed.
    """
    fixed, scans = resampled(fixed, FINE), {name: resampled(scan, FINE) for name, scan in scans.items()}
    to_fixed = register(fixed, scans[REFERENCE])
    motions = {name: to_fixed @ register(scans[REFERENCE], scan) for name, scan in scans.items() if name != REFERENCE}
    motions[REFERENCE] = to_fixed
    for name, motion in motions.items():
        own = name != REFERENCE
        to, of = (moved(scans[REFERENCE], to_fixed), REFERENCE) if own else (fixed, fixed.path)
        if place := better_place(to, moved(scans[name], motion), same=own or same):
            raise CaseError(
                f"the registration of {name} failed (it fits {of} better {place}); check that it is a scan of this "
                "patient's head and that its header states the right orientation, or register it with another tool"
            )
    return motions


def fixed_head(atlas: Scan, dataset_dir: Path, patient: str, cohort: Cohort) -> tuple[str, Scan]:
    """What the T1ce of a patient is registered to: that of the first prepared time point if there is one, or the atlas.

    Args:
        atlas: a head.
        dataset_dir: the folder of the prepared cases.
        patient: patient id.
        cohort: how the names of cases tell the patient.

    Returns:
        The name of the case, or of the atlas, and its head.

    Raises:
        CaseError: the T1ce of that time point cannot be used any more.
    """
    for path in sorted(dataset_dir.glob(f"*/{RECORD}")):
        record, case = Prepared.read(path), path.parent.name
        if record.registered_to and patient == (record.patient or cohort.patient_of(case)):
            try:
                return case, replace(record.scan(REFERENCE), path=f"the {REFERENCE} of {case}")
            except InputError as error:
                why = str(error).rstrip(".")
                raise CaseError(
                    f"it must be registered to the {REFERENCE} of {case}, which cannot be used ({why}); "
                    f"restore that, or delete the prepared case {case}"
                ) from error
    return ATLAS, atlas


def prepare_case(
    folder: Path, target: Path, atlas: Scan, cohort: Cohort, names: Names, device: torch.device | str
) -> None:
    """Prepare one patient: write its scans, where they come from, and a picture of the registration.

    Args:
        folder: with the patient's files.
        target: the case's folder among the prepared ones.
        atlas: head on the grid to write.
        cohort: how the files are named.
        names: words of the names of series, by modality.
        device: of HD-BET.

    Raises:
        CaseError: scans are missing, unreadable or cannot be prepared.
        InputError: a file cannot be written, or a package is missing.
    """
    try:
        chosen = choose(series_of(folder, cohort, names), cohort.modalities)
        scans = {name: series.read() for name, series in chosen.items()}
    except InputError as error:
        raise CaseError(str(error)) from error
    for scan in scans.values():
        if scan.data.ndim != 3:
            raise CaseError(f"'{scan.path}' has four axes; give one volume per modality")
        if scan.data.min() == scan.data.max():
            raise CaseError(f"'{scan.path}' has the same value everywhere; export it again")
        for note in scan.notes:
            logger.warning(f"{target.name}: {note}.")
    targets = {name: target / f"{target.name}{cohort.suffixes[name][0]}.nii.gz" for name in scans}
    if is_prepared(scans) and not any(series.is_dicom for series in chosen.values()):
        for name, series in chosen.items():
            copy_scan(Path(series.files[0]), targets[name])
        save_json(vars(Prepared.of(chosen, scans, dict.fromkeys(scans, np.eye(4)), "")), target / RECORD)
        return
    if all(map(_is_stripped, scans.values())):
        raise CaseError("its scans have no skull, but are not NIfTI files on one grid; give those with the skull")
    patient = patient_id(chosen) or cohort.patient_of(target.name)
    registered_to, fixed = fixed_head(atlas, target.parent, patient, cohort)
    motions = register_all(scans, fixed, same=registered_to != ATLAS)
    placed = {name: moved(scan, motions[name]) for name, scan in scans.items()}
    heads = {name: replace(atlas, data=on_grid(scan, atlas)) for name, scan in placed.items()}
    brain = brain_of(heads[REFERENCE], device)
    shown = {name: brain & seen(scan, atlas) for name, scan in placed.items()}
    for name, mask in shown.items():
        if (share := mask.sum() / brain.sum()) < SEEN:
            raise CaseError(f"its {name} shows only {share:.0%} of the brain; give a scan of the whole brain")
    for name, head in heads.items():
        write_scan(head, shown[name], targets[name])
    picture(heads, replace(atlas, data=on_grid(fixed, atlas)), brain, REFERENCE, target / PICTURE)
    record = Prepared.of(chosen, scans, motions, registered_to)
    save_json(vars(record), target / RECORD)  # the last file: the case is complete
    logger.info(f"{target.name}: registered to {fixed.path}.")


def copy_scan(source: Path, target: Path) -> None:
    """Copy a file unchanged; decompressed files are stored under a name that says so."""
    target = target if source.name.lower().endswith(".gz") else target.with_suffix("")
    copy_file(source, target)


def write_scan(head: Scan, brain: Mask, target: Path) -> None:
    """Write the brain of a head as float32, 0 outside and above 0 inside."""
    inside = head.data[brain]
    data = np.zeros(head.shape, np.float32)
    data[brain] = inside - min(float(inside.min()), 0.0) + 1e-3
    image = nib.Nifti1Image(data, head.affine)
    image.set_qform(head.affine, "aligned")
    image.set_sform(head.affine, "aligned")
    image.header.set_xyzt_units("mm")
    with atomic_write(target) as part:
        nib.save(image, part)


def patients_to_prepare(scans_dir: str, dataset_dir: str, cohort: Cohort) -> list[Path]:
    """The folder of each patient whose scans are prepared.

    Args:
        scans_dir: one folder per patient, with DICOM series or NIfTI files, or the folder of one patient.
        dataset_dir: where the cases will be written.
        cohort: how their files will be named.

    Raises:
        OptionError: there is no patient, a folder or the cohort cannot be used, or there are several processes.
    """
    folders = patient_folders(scans_dir)
    target = Path(dataset_dir).resolve()
    if not dataset_dir or Path(scans_dir).resolve() in (target, *target.parents):
        raise OptionError(f"dataset_dir '{dataset_dir}' must be a folder outside scans_dir; prepared cases go there.")
    if cohort.channels:
        raise OptionError(f"cohort {cohort.name} has 4-D files; prepare scans for one with a file per modality.")
    if REFERENCE not in cohort.modalities:
        raise OptionError(
            f"cohort {cohort.name} has no {REFERENCE}, to which the other scans are registered; give another cohort."
        )
    if processes() > 1:
        raise OptionError(
            f"Scans are prepared by one process, not by {processes()}; use `run preparing` without torchrun, then "
            "`run inferring` with it."
        )
    return [Path(os.path.abspath(folder)) for folder in folders]  # has a name; a link keeps its own


def prepare_patients(
    folders: Sequence[Path],
    dataset_dir: str,
    cohort: Cohort,
    series: Names,
    grid: Sequence[Sequence[float]],
    head: Sequence[Sequence[float]],
    device: torch.device | str,
) -> list[LeftOut]:
    """Prepare patients; those that are prepared already are kept.

    Args:
        folders: the folder of each patient.
        dataset_dir: where to write the cases.
        cohort: how the files are named.
        series: words of the names of series, by modality.
        grid: affine (4, 4) of the atlas grid.
        head: (4, 4), from the mm of the atlas head to those of the grid.
        device: of HD-BET.

    Returns:
        The patients that cannot be prepared, with the reason.

    Raises:
        InputError: none can be prepared, or a package is missing.
    """
    atlas = atlas_head(brats_grid(grid), head)
    left_out = []
    for folder in tqdm(folders, "preparing", unit="patient", disable=None):
        target = Path(dataset_dir, folder.name)
        try:
            if (target / RECORD).is_file():
                require_source(target / RECORD, folder)
            else:
                prepare_case(folder, target, atlas, cohort, series, device)
        except (CaseError, RuntimeError, MemoryError) as error:
            left_out.append(LeftOut(folder.name, reason(error)))
            logger.error(f"left out, {left_out[-1]}")
    logger.info(f"{len(folders) - len(left_out)} of {len(folders)} patients prepared; see '{dataset_dir}'.")
    if len(left_out) == len(folders):
        raise InputError(f"No patient can be prepared; {left_out[0]}")
    return left_out


def require_source(record: Path, folder: Path) -> None:
    """Refuse a case of the same name that was prepared from another folder.

    Raises:
        CaseError: it was.
    """
    for file in (file for files in Prepared.read(record).files.values() for file in files):
        if not Path(file).is_relative_to(folder):
            raise CaseError(f"'{record.parent}' was prepared from '{file}'; delete it, or give another dataset_dir")


def with_patients(cases: Sequence[Case]) -> list[Case]:
    """The cases with the patient ids of their DICOM series, so that those of one patient are its time points."""
    found = []
    for case in cases:
        record = Path(case.images[0]).parent / RECORD
        patient = Prepared.read(record).patient if record.is_file() else ""
        found.append(replace(case, patient=patient or case.patient))
    return found


def finish(left_out: Sequence[LeftOut]) -> None:
    """List the patients that could not be prepared; if there are any, exit with status 1."""
    if left_out:
        logger.error("left out:\n  " + "\n  ".join(map(str, left_out)))
        raise SystemExit(1)
