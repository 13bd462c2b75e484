"""Prepare the scans of patients as BraTS did: on the atlas grid with 1 mm voxels, registered, without the skull."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Self

import nibabel as nib
import numpy as np
import torch
from tqdm import tqdm
from tumour.cases.case import LeftOut
from tumour.cohort import Cohort
from tumour.errors import CaseError, InputError, OptionError
from tumour.files import atomic_write, copy_file, save_json
from tumour.records import read_json
from tumour.scanner.extra import require
from tumour.scanner.picture import PICTURE, picture
from tumour.scanner.register import FINE, Matrix, moved, on_grid, overlap, register, resampled
from tumour.scanner.strip import brain_of
from tumour.scanner.study import Names, Series, choose, patient_folders, series_of
from tumour.scans.grid import Mask, Scan
from tumour.scans.readers import background_of

REFERENCE = "T1ce"  # the scan that the others are registered to
RECORD = "prepare.json"  # next to the files of a prepared case
OVERLAP = 0.8  # of the heads, after registration
BRATS = (240, 240, 155)  # voxels of 1 mm
PREPARED = {"files": {str: [str]}, "shapes": {str: [int]}} | {n: {str: [[float]]} for n in ("affines", "motions")}
logger = logging.getLogger("bundle")


@dataclass(frozen=True)
class Prepared:
    """Where the scans of a prepared case come from.

    Args:
        files: the NIfTI file or DICOM files of each modality.
        shapes: voxels of each (x, y, z).
        affines: (4, 4) of each, from voxels to mm (RAS).
        motions: (4, 4) of each, from its mm to those of the prepared scans.
    """

    files: Mapping[str, Sequence[str]]
    shapes: Mapping[str, Sequence[int]]
    affines: Mapping[str, Sequence[Sequence[float]]]
    motions: Mapping[str, Sequence[Sequence[float]]]

    @classmethod
    def of(cls, chosen: Mapping[str, Series], scans: Mapping[str, Scan], motions: Mapping[str, Matrix]) -> Self:
        return cls(
            {name: [str(Path(file).resolve()) for file in series.files] for name, series in chosen.items()},
            {name: list(scan.shape) for name, scan in scans.items()},
            {name: scan.affine.tolist() for name, scan in scans.items()},
            {name: motion.tolist() for name, motion in motions.items()},
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        content = read_json(path, PREPARED)
        return cls(**{name: content[name] for name in PREPARED})

    def grid(self, modality: str) -> Scan:
        """The grid of a scan at its place among the prepared ones."""
        empty = np.broadcast_to(np.uint8(0), tuple(self.shapes[modality]))
        return moved(Scan(modality, empty, np.array(self.affines[modality])), np.array(self.motions[modality]))


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
    head = Scan("atlas", np.asarray(image.dataobj).squeeze(), np.asarray(image.affine, float))
    return replace(grid, path="atlas", data=on_grid(moved(head, np.array(motion, float)), grid))


def brats_grid(affine: Sequence[Sequence[float]]) -> Scan:
    """The grid of BraTS, without values."""
    return Scan("atlas", np.broadcast_to(np.uint8(0), BRATS), np.array(affine, float))


def is_prepared(scans: Mapping[str, Scan]) -> bool:
    """Whether all scans have the size of BraTS, 1 mm voxels, and a background without skull."""
    return all(
        scan.shape == BRATS and np.allclose(scan.spacing, 1, atol=1e-3) and _is_stripped(scan)
        for scan in scans.values()
    )


def _is_stripped(scan: Scan) -> bool:
    """Whether over half of the voxels have the value of the background; the air around a head has noise."""
    return bool((scan.data == background_of(scan.data)).mean() > 0.6)


def register_all(scans: Mapping[str, Scan], atlas: Scan) -> dict[str, Matrix]:
    """The motion of each scan to the atlas: T1ce to the atlas, the others to T1ce.

    Raises:
        CaseError: heads do not overlap after it.
    """
    atlas, scans = resampled(atlas, FINE), {name: resampled(scan, FINE) for name, scan in scans.items()}
    to_atlas = register(atlas, scans[REFERENCE])
    motions = {name: to_atlas @ register(scans[REFERENCE], scan) for name, scan in scans.items() if name != REFERENCE}
    motions[REFERENCE] = to_atlas
    for name, motion in motions.items():
        share = overlap(atlas, moved(scans[name], motion))
        if share < OVERLAP:
            raise CaseError(
                f"the registration of {name} failed ({share:.0%} of the heads overlap); check that it is a scan of "
                "this patient's head, or register it with another tool"
            )
    return motions


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
        InputError: scans are missing, unreadable or cannot be prepared.
    """
    chosen = choose(series_of(folder, cohort, names), cohort.modalities)
    scans = {name: series.read() for name, series in chosen.items()}
    targets = {name: target / f"{target.name}{cohort.suffixes[name][0]}.nii.gz" for name in scans}
    if all(not series.is_dicom for series in chosen.values()) and is_prepared(scans):
        for name, series in chosen.items():
            copy_scan(Path(series.files[0]), targets[name])
        save_json(vars(Prepared.of(chosen, scans, dict.fromkeys(scans, np.eye(4)))), target / RECORD)
        return
    if volumes := [name for name, scan in scans.items() if scan.data.ndim != 3]:
        raise CaseError(f"'{scans[volumes[0]].path}' has four axes; give one volume per modality")
    motions = register_all(scans, atlas)
    heads = {name: replace(atlas, data=on_grid(moved(scan, motions[name]), atlas)) for name, scan in scans.items()}
    brain = brain_of(heads[REFERENCE], device)
    for name, head in heads.items():
        write_scan(head, brain, targets[name])
    picture(heads, atlas, brain, REFERENCE, target / PICTURE)
    save_json(vars(Prepared.of(chosen, scans, motions)), target / RECORD)  # the last file: the case is complete


def copy_scan(source: Path, target: Path) -> None:
    """Copy a file unchanged; decompressed files are stored under a name that says so."""
    target = target if source.name.endswith(".gz") else target.with_suffix("")
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


def prepare_patients(
    scans_dir: str,
    dataset_dir: str,
    cohort: Cohort,
    series: Names,
    grid: Sequence[Sequence[float]],
    head: Sequence[Sequence[float]],
    device: torch.device | str,
) -> list[LeftOut]:
    """Prepare all patients of a folder; those that are prepared already are kept.

    Args:
        scans_dir: one folder per patient, with DICOM series or NIfTI files, or the folder of one patient.
        dataset_dir: where to write the cases.
        cohort: how the files are named.
        series: words of the names of series, by modality.
        grid: affine (4, 4) of the atlas grid.
        head: (4, 4), from the mm of the atlas head to those of the grid.
        device: of HD-BET.

    Returns:
        The patients that cannot be prepared, with the reason.

    Raises:
        InputError: there is no patient, none can be prepared, or a package is missing.
    """
    folders = patient_folders(scans_dir)
    target = Path(dataset_dir).resolve()
    if not dataset_dir or Path(scans_dir).resolve() in (target, *target.parents):
        raise OptionError(f"dataset_dir '{dataset_dir}' must be a folder outside scans_dir; prepared cases go there.")
    if cohort.channels:
        raise OptionError(f"cohort {cohort.name} has 4-D files; prepare scans for one with a file per modality.")
    atlas = atlas_head(brats_grid(grid), head)
    left_out = []
    for folder in tqdm(folders, "preparing", unit="patient", disable=None):
        target = Path(dataset_dir, folder.resolve().name)
        if (target / RECORD).is_file():
            continue
        try:
            prepare_case(folder, target, atlas, cohort, series, device)
        except InputError as error:
            left_out.append(LeftOut(folder.resolve().name, str(error).rstrip(".")))
            logger.error(f"left out, {left_out[-1]}")
    logger.info(f"{len(folders) - len(left_out)} of {len(folders)} patients prepared; see '{dataset_dir}'.")
    if len(left_out) == len(folders):
        raise InputError(f"No patient in '{scans_dir}' can be prepared; {left_out[0]}")
    return left_out


def finish(left_out: Sequence[LeftOut]) -> None:
    """List the patients that could not be prepared; if there are any, exit with status 1."""
    if left_out:
        logger.error("left out:\n  " + "\n  ".join(map(str, left_out)))
        raise SystemExit(1)
