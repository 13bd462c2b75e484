"""How well two masks of a region agree: pure functions over numpy arrays, no file access.

The figures of the BraTS challenges (Menze et al., 2015), defined as in the organisers' programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np

# MONAI: for the areas of surface elements. Not its metrics: they give NaN on a miss, leave out empty references, know
# no lesions, measure HD95 without areas and NSD over both surfaces at once.
from monai.metrics.utils import create_table_neighbour_code_to_surface_area
from numpy.typing import NDArray

# scipy: finds neighbours. Not surface-distance: its HD95 is the one wanted, but from dense distance maps, most of the
# 24-42 s that the organisers' program takes for a case.
from scipy.spatial import KDTree
from tumour.scans.grid import Mask, bounding_box

Row = dict[str, Any]
TOLERANCES = (0.5, 1.0)  # mm, of the normalised surface distance (NSD)
PERFECT = {"dice": 1.0, "hd95": 0.0, **{f"nsd_{mm}": 1.0 for mm in TOLERANCES}}


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
