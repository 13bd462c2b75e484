"""Scores of the BraTS challenges: pure functions over numpy arrays, no file access.

Regions are scored as a whole (Menze et al., 2015) and lesion by lesion, as the organisers' programs of 2023 and 2024 do
(github.com/rachitsaluja/BraTS-2023-Metrics and BraTS-2024-Metrics). The figures of the first are met to 1e-6. Of the
second one step is left out: it also joins pieces of ET that touch the same piece of necrosis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

# MONAI: for the areas of surface elements. Not its metrics: they give NaN on a miss, leave out empty references, know
# no lesions, measure HD95 without areas and NSD over both surfaces at once.
from monai.metrics.utils import create_table_neighbour_code_to_surface_area
from numpy.typing import NDArray

# scipy: numbers components, finds neighbours. Not connected-components-3d: the same components, one dependency more.
# Not panoptica: it matches lesions one to one or by overlap, the challenges match many to many after dilation.
# Not surface-distance: its HD95 is the one wanted, but from dense distance maps, most of the 24-42 s a case.
from scipy import ndimage
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]
Row = dict[str, Any]
TOLERANCES = (0.5, 1.0)  # mm, of the normalised surface distance (NSD)
PERFECT = {"dice": 1.0, "hd95": 0.0, **{f"nsd_{mm}": 1.0 for mm in TOLERANCES}}


@dataclass(frozen=True)
class Rules:
    """How a challenge scores.

    Args:
        penalty: HD95 in mm of what is missed or invented; 0: the diagonal of the case's own grid, in voxels.
        smallest: reference lesions of at most so many mm³ do not count; None: lesions are not scored.
        dilations: lesions whose blobs touch after so many are one; what is predicted within its blob belongs to it.
        prune: merge predicted pieces in the same way, then drop those of at most `smallest` voxels.
        exceptions: other values of these, by region or class.
    """

    penalty: float
    smallest: float | None = None
    dilations: int = 0
    prune: bool = False
    exceptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def of(self, region: str, shape: Sequence[int]) -> Rules:
        """The rules for one region or class of a case on a grid of this shape."""
        rules = replace(self, exceptions={}, **self.exceptions.get(region, {}))
        return replace(rules, penalty=rules.penalty or math.hypot(*shape))


_ENHANCING = dict.fromkeys(("ET", "enhancing"), {"smallest": 10})
_HOLES = dict.fromkeys(("necrotic", "RC", "cavity"), {"dilations": 5})
CHALLENGES = {  # penalty, smallest, dilations
    "legacy": Rules(math.hypot(240, 240, 155)),  # 373.13, the diagonal of the BraTS grid
    "glioma2023": Rules(374, 50, 3),
    "africa2023": Rules(374, 50, 3),
    "pediatric2023": Rules(374, 50, 3),
    "meningioma2023": Rules(374, 50, 1),
    "metastases2023": Rules(374, 2, 1),
    "glioma2024": Rules(337, 20, 3, prune=True, exceptions=_ENHANCING | _HOLES),
    "metastases2024": Rules(0, 2, 1, prune=True),
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

    @cache  # ET and enhancing are scored once
    def scores(values: frozenset[int], own: Rules) -> tuple[Row, list[Row]]:
        truth, guess = (np.logical_or.reduce([label == value for value in values]) for label in labels)
        counts, lesions = lesion_scores(truth, guess, spacing, own) if own.smallest is not None else ({}, [])
        return region_scores(truth, guess, spacing, own.penalty) | counts, lesions

    rows, lesion_rows = [], []
    parts = [("region", name, names) for name, names in regions.items()]
    for kind, name, names in parts + [("class", name, [name]) for name in classes[1:]]:
        row, lesions = scores(frozenset(map(classes.index, names)), rules.of(name, reference.shape))
        rows.append({"kind": kind, "region": name, **row})
        lesion_rows += [{"kind": kind, "region": name, **lesion} for lesion in lesions]
    return rows, lesion_rows


def region_scores(reference: Mask, prediction: Mask, spacing: Sequence[float], penalty: float = 374.0) -> Row:
    """Scores of one region; both empty is perfect, one empty is worst.

    Returns:
        Of voxels: dice (also called F1), iou, precision, sensitivity, specificity, accuracy; of surfaces: see
        `surface_scores`; volumes in ml, of which error_ml is predicted less reference.
    """
    present, predicted = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    both = int(np.count_nonzero(reference & prediction))
    either, ml = present + predicted - both, math.prod(map(float, spacing)) / 1000

    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else float(either == 0)

    return {
        "dice": ratio(2 * both, present + predicted),
        "iou": ratio(both, either),
        "precision": ratio(both, predicted),
        "sensitivity": ratio(both, present),
        "specificity": ratio(reference.size - either, reference.size - present),
        "accuracy": ratio(reference.size - either + both, reference.size),
        **surface_scores(reference, prediction, spacing, penalty),
        "reference_ml": present * ml,
        "predicted_ml": predicted * ml,
        "error_ml": (predicted - present) * ml,
    }


def lesion_scores(reference: Mask, prediction: Mask, spacing: Sequence[float], rules: Rules) -> tuple[Row, list[Row]]:
    """Scores of one region lesion by lesion, by the rules for this region.

    Returns:
        The means over found, missed and invented lesions with their numbers, and a row a lesion: `outcome` (found,
        missed, invented, or small: not counted), centre in voxels, volumes in ml and scores.
    """
    box = bounding_box(reference | prediction, margin=rules.dilations)
    reference, prediction = reference[box], prediction[box]
    blobs, smallest = _numbered(reference, rules.dilations), rules.smallest or 0
    pieces = _numbered(prediction, rules.dilations if rules.prune else 0) * prediction
    if rules.prune:  # by voxels, where reference lesions are dropped by mm³: so the program does
        pieces[np.bincount(pieces.ravel())[pieces] <= smallest] = 0
    lesions, base = blobs * reference, pieces.max(initial=0) + 1
    touching = (blobs > 0) & (pieces > 0)
    owners, owned = np.divmod(np.unique(blobs[touching].astype(np.int64) * base + pieces[touching]), base)
    boxes, piece_boxes = ndimage.find_objects(lesions), ndimage.find_objects(pieces)
    matches = [(number, owned[owners == number].tolist()) for number in range(1, len(boxes) + 1)]
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


def surface_scores(reference: Mask, prediction: Mask, spacing: Sequence[float], penalty: float = 374.0) -> Row:
    """How near the surfaces of two masks are.

    Returns:
        hd95: mm within which 95% of either surface, by area between voxel corners, lies from the other (Nikolov et al.,
        2018); nsd: the mean over both of the share of border voxels within so many mm of the other's border (Isensee
        et al., 2021). So the 2023 program measures the first, the 2024 program the second.
    """
    if not (reference.any() and prediction.any()):
        perfect = not (reference.any() or prediction.any())
        return {"hd95": 0.0 if perfect else penalty, **{f"nsd_{mm}": float(perfect) for mm in TOLERANCES}}
    box = bounding_box(reference | prediction)
    masks = [np.pad(mask[box], 1) for mask in (reference, prediction)]
    corners, areas = zip(*(_corners(mask, tuple(map(float, spacing))) for mask in masks), strict=True)
    hd95 = max(map(_within, _distances(corners, spacing), areas))
    reach = [mm + 1e-6 for mm in TOLERANCES]  # spacings are stored as float32; a voxel exactly 1 mm away is within 1 mm
    near = _distances([_border(mask) for mask in masks], spacing, max(reach))
    shares = [float(np.mean([np.mean(away <= mm) for away in near])) for mm in reach]
    return {"hd95": hd95, **{f"nsd_{mm}": share for mm, share in zip(TOLERANCES, shares, strict=True)}}


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds a mask, widened by `margin` voxels where the grid goes on."""
    box = []
    for axis, size in enumerate(mask.shape):
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        first, last = (int(where[0]), int(where[-1])) if where.size else (0, -1)
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, size)))
        mask = mask[(slice(None),) * axis + (slice(first, last + 1),)]  # less to look through for the next axis
    return tuple(box)


def _numbered(mask: Mask, dilations: int) -> NDArray[np.int32]:
    """The 26-connected components of a mask after dilations with the 18-connected element, from 1."""
    if dilations:
        mask = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 2), dilations)
    return ndimage.label(mask, np.ones((3, 3, 3)))[0]


def _corners(padded: Mask, spacing: tuple[float, ...]) -> tuple[Mask, NDArray[np.float64]]:
    """The voxel corners that the surface of a mask passes, and its area at each in mm²."""
    code = np.zeros([size - 1 for size in padded.shape], np.uint8)  # a bit for each of the 2x2x2 voxels around
    for offsets in product((0, 1), repeat=3):
        code <<= 1
        code |= padded[tuple(slice(o, o + n) for o, n in zip(offsets, code.shape, strict=True))]
    passed = (code > 0) & (code < 255)
    return passed, _areas(spacing)[code[passed]]


@cache
def _areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    return create_table_neighbour_code_to_surface_area(spacing)[0].double().numpy()


def _border(padded: Mask) -> Mask:
    """Voxels of a mask with a face on the outside."""
    neighbours = [np.roll(padded, shift, axis) for axis in range(padded.ndim) for shift in (-1, 1)]
    return padded & ~np.logical_and.reduce(neighbours)


def _distances(pair: Sequence[Mask], spacing: Sequence[float], reach: float = math.inf) -> list[NDArray[np.float64]]:
    """mm from each point of the first to the nearest of the second, and the other way round; inf beyond `reach`."""
    indices = [np.flatnonzero(mask) for mask in pair]
    points = [np.stack(np.unravel_index(index, pair[0].shape), axis=1) * spacing for index in indices]
    distances = []
    for here, there in ((0, 1), (1, 0)):
        apart = ~pair[there].ravel()[indices[here]]  # the others are 0 mm away
        distances.append(np.zeros(apart.size))
        distances[-1][apart] = KDTree(points[there], leafsize=32).query(
            points[here][apart], distance_upper_bound=reach
        )[0]
    return distances


def _within(distances: NDArray[np.float64], areas: NDArray[np.float64], share: float = 0.95) -> float:
    """The distance within which this share of the area lies."""
    order = np.argsort(distances)
    index = np.searchsorted(np.cumsum(areas[order]) / np.sum(areas), share)
    return float(distances[order][min(int(index), len(order) - 1)])
