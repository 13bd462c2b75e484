"""Score a case as a challenge does: every region as a whole, and lesion by lesion.

Rules and constants are those of the organisers' programs of 2023 and 2024 (github.com/rachitsaluja/BraTS-2023-Metrics
and BraTS-2024-Metrics). The figures of the first are met to 1e-6. The second drops small predictions before it scores a
region as a whole; here a whole region is always all that was predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# scipy: numbers components. Not connected-components-3d: the same components, one dependency more. Not panoptica: it
# matches lesions one to one or by overlap, the challenges match many to many after dilation.
from scipy import ndimage
from tumour.cohort import Cohort
from tumour.errors import one_of
from tumour.scans.grid import Mask, bounding_box
from tumour.scores.metrics import PERFECT, Row, region_scores

Joiner = tuple[NDArray[np.int32], NDArray[np.int32]]  # the pieces of a class in the reference and in the prediction
NEIGHBOURS = ndimage.generate_binary_structure(3, 2)  # over faces and edges, not corners


@dataclass(frozen=True)
class Rules:
    """How a challenge scores.

    Args:
        penalty: HD95 in mm of what is missed or invented; 0: the diagonal of the case's own grid, in voxels.
        smallest: reference lesions of at most so many mm³ do not count; None: lesions are not scored.
        dilations: lesions whose blobs touch after so many are one; what is predicted within its blob belongs to it.
        prune: merge predicted pieces in the same way, then drop those of at most `smallest` voxels.
        joined_by: classes a piece of which makes one lesion of all lesions that touch it, one class after the other.
        exceptions: other values of these, by region or class.
    """

    penalty: float
    smallest: float | None = None
    dilations: int = 0
    prune: bool = False
    joined_by: tuple[str, ...] = ()
    exceptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def of(self, region: str, shape: Sequence[int]) -> Rules:
        """The rules for one region or class of a case on a grid of this shape."""
        rules = replace(self, exceptions={}, **self.exceptions.get(region, {}))
        return replace(rules, penalty=rules.penalty or math.hypot(*shape))


_CAVITY = {"dilations": 5, "joined_by": ("enhancing", "necrotic")}
_GLIOMA: dict[str, dict[str, Any]] = {
    "ET": {"smallest": 10, "joined_by": ("necrotic", "cavity")},
    "enhancing": {"smallest": 10, "joined_by": ("necrotic", "cavity")},
    "necrotic": {"dilations": 5, "joined_by": ("enhancing", "cavity")},
    "oedema": {"joined_by": ("enhancing", "cavity", "necrotic")},
    "RC": _CAVITY,
    "cavity": _CAVITY,
}
_METASTASES: dict[str, dict[str, Any]] = dict.fromkeys(("ET", "enhancing"), {"joined_by": ("necrotic",)})
CHALLENGES = {  # penalty, smallest, dilations
    "legacy": Rules(math.hypot(240, 240, 155)),  # 373.13, the diagonal of the BraTS grid
    "glioma2023": Rules(374, 50, 3),
    "africa2023": Rules(374, 50, 3),
    "pediatric2023": Rules(374, 50, 3),
    "meningioma2023": Rules(374, 50, 1),
    "metastases2023": Rules(374, 2, 1),
    "glioma2024": Rules(337, 20, 3, prune=True, exceptions=_GLIOMA),
    "metastases2024": Rules(0, 2, 1, prune=True, exceptions=_METASTASES),
}


def case_scores(
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    spacing: Sequence[float],
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    rules: Rules,
) -> tuple[list[Row], list[Row]]:
    """A row for every region and every class of a case (`kind` says which), and a row for every lesion of each.

    The values of both label maps are positions in `classes`, background first; `spacing` is in mm.
    """
    labels = [np.ascontiguousarray(label) for label in (reference, prediction)]

    def masks(values: Iterable[int]) -> list[Mask]:
        return [np.logical_or.reduce([label == value for value in values]) for label in labels]

    @cache
    def joiner(name: str) -> Joiner:
        own = rules.of(name, reference.shape)
        truth, guess = masks([classes.index(name)])
        return merged_pieces(truth, own.dilations), merged_pieces(guess, own.dilations, own.smallest or 0)

    @cache  # ET and enhancing are scored once
    def scores(values: frozenset[int], own: Rules) -> tuple[Row, list[Row]]:
        truth, guess = masks(values)
        joiners = [joiner(name) for name in own.joined_by if name in classes]
        counts, lesions = ({}, []) if own.smallest is None else lesion_scores(truth, guess, spacing, own, joiners)
        return region_scores(truth, guess, spacing, own.penalty) | counts, lesions

    rows, lesion_rows = [], []
    parts = [("region", name, names) for name, names in regions.items()]
    for kind, name, names in parts + [("class", name, [name]) for name in classes[1:]]:
        row, lesions = scores(frozenset(map(classes.index, names)), rules.of(name, reference.shape))
        rows.append({"kind": kind, "region": name, **row})
        lesion_rows += [{"kind": kind, "region": name, **lesion} for lesion in lesions]
    return rows, lesion_rows


def lesion_scores(
    reference: Mask, prediction: Mask, spacing: Sequence[float], rules: Rules, joiners: Sequence[Joiner] = ()
) -> tuple[Row, list[Row]]:
    """Scores of one region lesion by lesion, by the rules for this region.

    Args:
        reference, prediction: the region on the whole grid.
        spacing: in mm.
        rules: those of `Rules.of` for this region.
        joiners: for each of `rules.joined_by` its numbered pieces in the reference and in the prediction.

    Returns:
        The means over found, missed and invented lesions with their numbers, and a row a lesion: `outcome` (found,
        missed, invented, or small: not counted), centre in voxels, volumes in ml and scores.
    """
    box = bounding_box(reference | prediction, margin=max(rules.dilations, 1))
    reference, prediction = reference[box], prediction[box]
    blobs, smallest = _numbered(reference, rules.dilations), rules.smallest or 0
    # of predictions by voxels, where reference lesions are dropped by mm³: so the program does
    pieces = merged_pieces(prediction, rules.dilations, smallest) if rules.prune else _numbered(prediction, 0)
    for truth, guess in joiners:
        blobs = _joined(blobs * reference, truth[box])[blobs]
        pieces = _joined(pieces, guess[box])[pieces]
    lesions, base = blobs * reference, pieces.max(initial=0) + 1
    touching = (blobs > 0) & (pieces > 0)
    owners, owned = np.divmod(np.unique(blobs[touching].astype(np.int64) * base + pieces[touching]), base)
    boxes, piece_boxes = ndimage.find_objects(lesions), ndimage.find_objects(pieces)
    matches = [(number, owned[owners == number].tolist()) for number, found in enumerate(boxes, 1) if found]
    matches += [(0, [piece]) for piece, found in enumerate(piece_boxes, 1) if found and piece not in owned]
    rows: list[Row] = []
    for number, parts in matches:
        around = zip(*boxes[number - 1 : number], *(piece_boxes[part - 1] for part in parts), strict=True)
        hull = tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in around)
        lesion = (lesions[hull] == number) & reference[hull]
        scores = region_scores(lesion, np.isin(pieces[hull], parts), spacing, rules.penalty)
        large = round(scores["reference_ml"] * 1000, 3) > smallest  # mm³, less the rounding of float32 spacings
        outcome = "invented" if not number else "small" if not large else "found" if parts else "missed"
        centre = [(inner.start + inner.stop - 1) / 2 + outer.start for inner, outer in zip(hull, box, strict=True)]
        kept = {name: scores[name] for name in ("reference_ml", "predicted_ml", *PERFECT)}
        rows.append({"outcome": outcome, **dict(zip("xyz", centre, strict=True)), **kept})
    counted = [row for row in rows if row["outcome"] != "small"] or [PERFECT]
    means = {f"lesion_{name}": float(np.mean([row[name] for row in counted])) for name in PERFECT}
    outcomes = [row["outcome"] for row in rows]
    return means | {f"lesions_{name}": outcomes.count(name) for name in ("found", "missed", "invented")}, rows


def merged_pieces(mask: Mask, dilations: int, smallest: float = 0) -> NDArray[np.int32]:
    """The pieces of a mask from 1: those whose blobs touch are one, those of at most `smallest` voxels are gone."""
    pieces = np.zeros(mask.shape, np.int32)
    box = bounding_box(mask, margin=dilations)
    pieces[box] = _numbered(mask[box], dilations) * mask[box]
    if smallest:
        sizes = np.bincount(pieces[box].ravel())
        pieces[box][sizes[pieces[box]] <= smallest] = 0
    return pieces


def _numbered(mask: Mask, dilations: int) -> NDArray[np.int32]:
    """The 26-connected components of a mask after dilations with the 18-connected element, from 1."""
    if dilations:
        mask = ndimage.binary_dilation(mask, NEIGHBOURS, dilations)
    return ndimage.label(mask, np.ones((3, 3, 3)))[0]


def _joined(pieces: NDArray[np.int32], others: NDArray[np.int32]) -> NDArray[np.int32]:
    """The number that each piece gets when all that touch the same piece of the others become one.

    A piece that touches several joins over the first of them in the order of their numbers: so the program does.
    """
    table = np.arange(pieces.max(initial=0) + 1, dtype=np.int32)
    near = np.argwhere((pieces > 0) & ndimage.binary_dilation(others > 0, NEIGHBOURS))
    around = (near[:, None] + np.argwhere(NEIGHBOURS)).reshape(-1, 3)  # in `others` padded by one voxel
    touched = np.pad(others, 1)[tuple(around.T)]
    own = np.repeat(pieces[tuple(near.T)], len(around) // max(len(near), 1))
    pairs = np.unique(np.column_stack([own, touched])[touched > 0], axis=0)
    touching, first = np.unique(pairs[:, 0], return_index=True)
    _, lead, group = np.unique(pairs[first, 1], return_index=True, return_inverse=True)
    table[touching] = touching[lead][group]
    return table


def score_case(
    case: str,
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    spacing: Sequence[float],
    challenge: str,
    cohort: Cohort,
) -> tuple[list[Row], list[Row]]:
    """The rows of one case for scores.csv and lesions.csv, by the rules of a challenge.

    The values of both label maps are positions in the cohort's classes; `spacing` is in mm.
    """
    rules = one_of(CHALLENGES, challenge, setting="challenge")
    rows, lesion_rows = case_scores(reference, prediction, spacing, cohort.classes, cohort.regions, rules)
    return [{"case": case, **row} for row in rows], [{"case": case, **row} for row in lesion_rows]
