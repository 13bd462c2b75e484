"""Measure label maps without a reference: volumes, lesions, the RANO diameters, and the change between two time points.

For research, not for clinical use.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from tumour.cases.case import Case
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.files import save_text
from tumour.processes import gather, rank
from tumour.records import csv_text
from tumour.scans.grid import Mask, Scan, bounding_box, difference, pieces_of
from tumour.scans.readers import read_classes
from tumour.scores.metrics import Row

logger = logging.getLogger("bundle")
TABLE, CHANGES = "measurements.csv", "changes.csv"  # in the folder of the label maps
MEASURED = "ET"  # the region whose diameters are measured
MEASURABLE = 10.0  # mm, of both diameters, in a lesion of at least two slices (Wen et al., 2010, 2023)
# % of volume. RANO has +25% and -50% for the sum of the products of diameters; volumes change by their power of 3/2,
# 1.25^1.5 = 1.40 and 0.5^1.5 = 0.35, which are the limits for the sum of volumes (Ellingson et al., 2017)
GROWN, SHRUNK = 40.0, -65.0
OUTCOMES = ("new", "grown", "stable", "shrunk", "resolved")


def diameters(piece: Mask, spacing: Sequence[float]) -> tuple[float, float]:
    """The longest diameter of a piece in a slice and the longest one perpendicular to it, in mm.

    A voxel is a rectangle, and a diameter runs from one point of the convex hull to another. So a diameter may cross
    necrosis, and a gap in a ring of enhancement. The two are exactly perpendicular.

    Args:
        piece: (x, y), not empty.
        spacing: edge lengths of a voxel, mm.
    """
    rows = np.flatnonzero(piece.any(axis=1))
    first, last = piece[rows].argmax(axis=1), piece.shape[1] - piece[rows, ::-1].argmax(axis=1)
    ends = [np.column_stack([rows + side, end]) for side in (0, 1) for end in (first, last)]
    corners = np.concatenate(ends) * np.asarray(spacing, float)
    hull = corners[ConvexHull(corners).vertices]  # counter-clockwise
    steps = hull[:, None] - hull
    lengths = np.linalg.norm(steps, axis=-1)
    longest = float(lengths.max())
    ties = np.argwhere(lengths > longest - 1e-6)
    return longest, max(_chord(hull, steps[i, j] / longest) for i, j in ties)


def _chord(hull: np.ndarray, along: np.ndarray) -> float:
    """The longest chord of a convex polygon (corner, 2), counter-clockwise, that is perpendicular to a unit vector."""
    u, v = hull @ along, hull @ np.array([-along[1], along[0]])
    u, v = np.roll(u, -u.argmin()), np.roll(v, -u.argmin())
    turn = int(u.argmax())
    below = np.interp(u, u[: turn + 1], v[: turn + 1])
    above = np.interp(u, [u[0], *u[: turn - 1 : -1]], [v[0], *v[: turn - 1 : -1]])
    return float((above - below).max())  # it starts at a corner


def rano(mask: Mask, spacing: Sequence[float]) -> Row:
    """The diameters of the lesion with the largest product, and the number of measurable lesions.

    In each axial slice of a lesion, the longest diameter and the longest one perpendicular to it are measured; the
    slice with the largest product counts. A lesion is measurable if both are at least 10 mm and it extends over two
    slices (Wen et al., 2023, RANO 2.0).

    Args:
        mask: (right, anterior, superior), so that the third axis numbers the axial slices.
        spacing: edge lengths of a voxel, mm.
    """
    lesions, count = pieces_of(mask)
    largest = np.zeros((count + 1, 2))  # mm, by lesion
    slices = np.zeros(count + 1, int)
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        slices[np.unique(lesions[..., k])] += 1
        pieces, _ = pieces_of(mask[..., k])
        for number, box in enumerate(ndimage.find_objects(pieces), 1):
            piece = pieces[box] == number
            lesion, found = lesions[box][..., k][piece][0], diameters(piece, spacing[:2])
            if np.prod(found) > largest[lesion].prod():
                largest[lesion] = found
    measurable = (largest.min(axis=1) >= MEASURABLE - 1e-6) & (slices >= 2)
    longest, perpendicular = largest[largest.prod(axis=1).argmax()].tolist()
    return {"longest_mm": longest, "perpendicular_mm": perpendicular, "measurable": int(measurable[1:].sum())}


def measure(label: Scan, cohort: Cohort) -> Row:
    """Volume in ml and number of lesions of each region, and the diameters of enhancing tumour.

    Args:
        label: positions in the cohort's classes.
    """
    label = label.in_ras()
    tumour = label.data[bounding_box(label.data > 0)]  # the rest of the grid is empty
    voxel, masks = float(np.prod(label.spacing)) / 1000, cohort.masks(tumour)
    row: Row = {f"{region}_ml": int(mask.sum()) * voxel for region, mask in masks.items()}
    row |= {f"{region}_lesions": pieces_of(mask)[1] for region, mask in masks.items()}
    if MEASURED in masks:
        found = rano(masks[MEASURED], label.spacing.tolist())
        row |= {f"{MEASURED}_{name}": value for name, value in found.items()}
    return row


def change(before: Scan, after: Scan, cohort: Cohort) -> list[Row]:
    """One row per region: its volume at both time points, and how many lesions are new, grown, shrunk, resolved.

    Lesions of the two time points that touch are one lesion. It has grown if its volume is at least 40% larger, and
    shrunk if it is at least 65% smaller. That is no assessment of response, which RANO bases on all lesions and more.

    Raises:
        InputError: the two have different grids.
    """
    if fault := difference(before, after):
        raise InputError(f"The two time points must be on one grid: {fault}.")
    voxel, rows = float(np.prod(before.spacing)) / 1000, []
    for region, earlier in cohort.masks(before.data).items():
        later = cohort.masks(after.data)[region]
        pieces, _ = pieces_of(earlier | later)
        sizes = np.array([np.bincount(pieces[mask], minlength=pieces.max() + 1) for mask in (earlier, later)])
        was, now = (int(mask.sum()) * voxel for mask in (earlier, later))
        outcomes = [_outcome(*pair) for pair in sizes.T[1:].tolist()]
        row: Row = {"region": region, "before_ml": was, "after_ml": now, "change_ml": now - was}
        row["change_percent"] = 100 * (now - was) / was if was else None
        rows.append(row | {name: outcomes.count(name) for name in OUTCOMES})
    return rows


def _outcome(before: int, after: int) -> str:
    """What has become of a lesion with these numbers of voxels."""
    if not before or not after:
        return "resolved" if before else "new"
    percent = 100 * (after - before) / before
    return "grown" if percent >= GROWN else "shrunk" if percent <= SHRUNK else "stable"


def write_measurements(
    cases: Sequence[Case], folder: str, cohort: Cohort, maps: Mapping[str, str] | None = None
) -> None:
    """Write measurements.csv, one row per case, and changes.csv if a patient has several time points on one grid.

    Args:
        cases: the cases that this process segmented; those of a patient follow each other in time as their names do.
        folder: where to write; it has the label map of each case, `<case>.nii.gz`.
        cohort: the meaning of the label maps.
        maps: the label map of each case, if it is elsewhere.
    """
    patients = {case.name: case.patient for case in gather(cases)}
    if rank() or not patients:
        return
    rows: list[Row] = []
    changes: list[Row] = []
    left = Counter(patients.values())  # time points that were not measured yet
    earlier: dict[str, tuple[str, Scan]] = {}  # the last time point of each patient with another one to come
    for case, patient in sorted(patients.items()):
        label = read_classes((maps or {}).get(case, f"{folder}/{case}.nii.gz"), cohort)
        rows.append({"case": case, **measure(label, cohort)})
        before, then = earlier.pop(patient, ("", label))
        if before and (fault := difference(then, label)):
            logger.warning(f"{patient}: the change from {before} to {case} is not measured, because {fault}.")
        elif before:
            pair = {"patient": patient, "before": before, "after": case}
            changes += [{**pair, **row} for row in change(then, label, cohort)]
        left[patient] -= 1
        if left[patient]:
            earlier[patient] = case, label
    _write(rows, Path(folder, TABLE))
    Path(folder, CHANGES).unlink(missing_ok=True)  # of other cases
    if changes:
        _write(changes, Path(folder, CHANGES))


def _write(rows: Sequence[Row], path: Path) -> None:
    rounded = [{name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()} for row in rows]
    save_text(csv_text(rounded), path)
