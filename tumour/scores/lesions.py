"""Lesions in label maps: numbered pieces, pairs of them, and a row of scores per pair."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tumour.scores.metrics import Mask, Row

Pieces = NDArray[np.int32]  # (x, y, z): the number of the piece that a voxel belongs to, from 1; 0 is background
LESION = ("outcome", *"xyz", "reference_ml", "predicted_ml")  # of a lesion; its scores come after these


class Match(NamedTuple):
    """A reference lesion with the predicted pieces that belong to it, or a predicted piece that belongs to none."""

    lesions: list[int]  # one number, or none for an invented lesion
    pieces: list[int]

    @property
    def outcome(self) -> str:
        return "invented" if not self.lesions else "found" if self.pieces else "missed"


def lesion_rows(
    matches: Iterable[Match],
    lesions: Pieces,
    pieces: Pieces,
    box: Sequence[slice],
    score: Callable[[Mask, Mask], Row],
) -> list[Row]:
    """One row per match: its outcome, its centre in voxels and its scores.

    Args:
        matches: numbers of lesions and pieces.
        lesions, pieces: numbered, in a box of the grid.
        box: where that is.
        score: scores two masks.
    """
    if not lesions.size:
        return []
    lesion_boxes, piece_boxes = ndimage.find_objects(lesions), ndimage.find_objects(pieces)
    rows: list[Row] = []
    for match in matches:
        hull = _hull([lesion_boxes[n - 1] for n in match.lesions] + [piece_boxes[n - 1] for n in match.pieces])
        scores = score(np.isin(lesions[hull], match.lesions), np.isin(pieces[hull], match.pieces))
        axes = zip("xyz", hull, box, strict=True)
        centre = {axis: (inner.start + inner.stop - 1) / 2 + outer.start for axis, inner, outer in axes}
        rows.append({"outcome": match.outcome, **centre, **scores})
    return rows


def rows_by_name(
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    score: Callable[[str, Sequence[str]], tuple[Row, list[Row]]],
) -> tuple[list[Row], list[Row]]:
    """One row per region and class (`kind` says which), and one row per lesion of each.

    Args:
        classes: class names, background first.
        regions: class names of each region, by the region's name.
        score: scores one of them, given its name and its class names: a row, and one row per lesion.
    """
    wanted = [("region", name, names) for name, names in regions.items()]
    wanted += [("class", name, [name]) for name in classes[1:]]
    rows, rows_of_lesions = [], []
    for kind, name, names in wanted:
        row, lesions = score(name, names)
        rows.append({"kind": kind, "region": name, **row})
        rows_of_lesions += [{"kind": kind, "region": name, **lesion} for lesion in lesions]
    return rows, rows_of_lesions


def moved(rows: Iterable[Row], box: Sequence[slice]) -> list[Row]:
    """The rows of lesions in a box of the grid, with their centres in the grid."""
    corner = dict(zip("xyz", (part.start for part in box), strict=True))
    return [row | {axis: row[axis] + corner[axis] for axis in corner} for row in rows]


def outcomes(rows: Sequence[Row]) -> Row:
    """The number of found, missed and invented lesions in these rows."""
    every = [row["outcome"] for row in rows]
    return {f"lesions_{name}": every.count(name) for name in ("found", "missed", "invented")}


def _hull(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The smallest box that contains all boxes."""
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))
