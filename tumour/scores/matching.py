"""Score a region as the challenges of 2026 do: its lesions are matched one to one.

The scores agree to 1e-6 with those of the organisers' package BraTS_evaluation 0.0.10 (with panoptica 2.1.7) where it
gives any; docs/scores.md lists where that package and the challenges' pages differ.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from tumour.scans.grid import Mask, bounding_box, pieces_of
from tumour.scores.lesions import LESION, Match, Pieces, lesion_rows, moved, outcomes, rows_by_name
from tumour.scores.metrics import Row, border_distances, overlap_scores

SCORES = ("dice", "hd95", "nsd")  # of a region and of a lesion
ANY = 1e-6  # Dice of a match; also what a match counts more than its Dice
THRESHOLDS = np.arange(1, 11) / 10  # of the Dice of a match, for the area under the F1


@dataclass(frozen=True)
class Matching:
    """How a challenge scores that matches lesions one to one.

    Args:
        penalty: HD95 in mm of a missed or invented lesion or region.
        large: lesions of this volume (mm³) and more are scored, missed and invented ones included; the smaller ones
            only count for F1. None: the found lesions are scored, whatever their size.
        overlap: minimum Dice of a found lesion in the F1 of the large and that of the small lesions.
        regions: more regions than those of the cohort: the class names of each; a class that a cohort lacks is ignored.
    """

    penalty: float
    large: float | None = None
    overlap: float = 0.1
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def scores(
        self, reference: Mask, prediction: Mask, spacing: Sequence[float], voxels: int | None = None
    ) -> tuple[Row, list[Row]]:
        """Score one region; the arguments are those of `region_scores`. A row, and one row per lesion.

        A region that is empty in both masks has no scores (NaN), so that it is left out of the means.
        """

        def score(truth: Mask, guess: Mask) -> Row:
            return overlap_scores(truth, guess, spacing) | self._surfaces(truth, guess, spacing, min(spacing))

        box = bounding_box(reference | prediction)
        lesions, pieces = (pieces_of(mask[box])[0] for mask in (reference, prediction))
        dice = _dice(lesions, pieces)
        scored = lesion_rows(_matches(dice, ANY), lesions, pieces, box, score)
        row = overlap_scores(reference, prediction, spacing, voxels)
        row |= self._surfaces(reference, prediction, spacing, min(spacing) / 2)
        row |= {f"lesion_{name}": value for name, value in self._means(scored).items()}
        f1 = [_f1(*_counts(dice, threshold)) for threshold in THRESHOLDS]
        row["lesion_f1"] = _f1(*_counts(dice, ANY))
        row["lesion_f1_area"] = float(np.trapezoid([f1[0], *f1], [0, *THRESHOLDS]))
        row |= {} if self.large is None else self._by_size(scored, self.large)
        return row | outcomes(scored), [{name: each[name] for name in (*LESION, *SCORES)} for each in scored]

    def _surfaces(self, reference: Mask, prediction: Mask, spacing: Sequence[float], within: float) -> Row:
        """The HD95 over the border voxels of both masks, and the share of these that is within some mm (NSD).

        If no voxel is in both masks, these and Dice are the worst; if both are empty, there are none.
        """
        if not (reference & prediction).any():
            either = reference.any() or prediction.any()
            return dict(zip(SCORES, (0.0, self.penalty, 0.0) if either else (math.nan,) * 3, strict=True))
        distances = border_distances(reference, prediction, spacing)
        # spacings are stored as float32
        share = float(np.mean([np.mean(each <= within + 1e-6) for each in distances]))
        return {"hd95": float(np.percentile(np.concatenate(distances), 95)), "nsd": share}

    def _means(self, rows: Sequence[Row]) -> dict[str, float]:
        """The mean scores of the lesions that count."""
        if self.large is None:
            counted = [row for row in rows if row["outcome"] == "found"]
            nothing = (0.0, self.penalty, 0.0) if rows else (math.nan,) * 3
        else:
            large = [row for row in rows if _is_large(row, self.large)]
            counted = [*large, *(row for row in rows if row["outcome"] == "invented")] if large else []
            nothing = (math.nan,) * 3
        if not counted:
            return dict(zip(SCORES, nothing, strict=True))
        return {name: float(np.mean([row[name] for row in counted])) for name in SCORES}

    def _by_size(self, rows: Sequence[Row], large: float) -> dict[str, float]:
        """F1 of the large and of the small lesions; invented lesions count in both."""
        invented = sum(row["outcome"] == "invented" for row in rows)
        sizes: dict[str, list[bool]] = {"large": [], "small": []}
        for row in rows:
            if row["outcome"] != "invented":
                sizes["large" if _is_large(row, large) else "small"].append(row["dice"] >= self.overlap)
        return {
            f"lesion_f1_{size}": _f1(sum(found), len(found) - sum(found), invented) if found else math.nan
            for size, found in sizes.items()
        }


def _is_large(row: Row, large: float) -> bool:
    # mm³, without the rounding errors of float32 spacings
    return row["outcome"] != "invented" and round(row["reference_ml"] * 1000, 3) >= large


def _dice(lesions: Pieces, pieces: Pieces) -> NDArray[np.float64]:
    """The Dice of each lesion with each piece: (lesions, pieces)."""
    shape = lesions.max(initial=0) + 1, pieces.max(initial=0) + 1
    joint = np.bincount(lesions.ravel() * np.int64(shape[1]) + pieces.ravel(), minlength=shape[0] * shape[1])
    joint = joint.reshape(shape)  # numbers of voxels
    return 2 * joint[1:, 1:] / (joint.sum(axis=1)[1:, None] + joint.sum(axis=0)[1:])


def _pairs(dice: NDArray[np.float64], least: float) -> list[tuple[int, int]]:
    """The pairs of at least this Dice, one to one, with the largest sum of Dice."""
    gain = np.where(dice >= least, dice + ANY, 0)
    return [(a, b) for a, b in zip(*linear_sum_assignment(gain, maximize=True), strict=True) if gain[a, b]]


def _matches(dice: NDArray[np.float64], least: float) -> list[Match]:
    """One match per lesion, with a piece or without, then one per piece that has no lesion."""
    piece_of = dict(_pairs(dice, least))
    lesions = [Match([n + 1], [int(piece_of[n]) + 1] if n in piece_of else []) for n in range(dice.shape[0])]
    return lesions + [Match([], [n + 1]) for n in range(dice.shape[1]) if n not in piece_of.values()]


def _counts(dice: NDArray[np.float64], least: float) -> tuple[int, int, int]:
    """The number of found, missed and invented lesions, where a found one has at least this Dice."""
    found = len(_pairs(dice, least))
    return found, dice.shape[0] - found, dice.shape[1] - found


def _f1(found: int, missed: int, invented: int) -> float:
    total = 2 * found + missed + invented
    return 2 * found / total if total else math.nan


def case_scores(
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    spacing: Sequence[float],
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    rules: Matching,
) -> tuple[list[Row], list[Row]]:
    """Score every region and every class of a case, and every lesion in them.

    The arguments and the result are those of `tumour.scores.challenges.case_scores`.
    """
    voxels, box = reference.size, bounding_box((reference > 0) | (prediction > 0))  # the rest of the grid is empty
    reference, prediction = reference[box], prediction[box]

    def score(name: str, names: Sequence[str]) -> tuple[Row, list[Row]]:
        values = [classes.index(each) for each in names if each in classes]
        row, lesions = rules.scores(np.isin(reference, values), np.isin(prediction, values), spacing, voxels)
        return row, moved(lesions, box)

    return rows_by_name(classes, {**regions, **rules.regions}, score)
