"""Metrics for two masks of a region, as pure functions of numpy arrays.

The metrics are those of the BraTS challenges (Menze et al., 2015), defined as in the organisers' programs.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np

# MONAI provides the areas of surface elements. Its metrics differ from those of the challenges: they return NaN for a
# missed region, skip empty references, do not score lesions, and compute HD95 without areas and NSD over both surfaces.
from monai.metrics.utils import create_table_neighbour_code_to_surface_area
from numpy.typing import NDArray

# scipy finds the nearest neighbours. The package surface-distance computes the same HD95, but from dense distance maps;
# these take most of the 24-42 s per case of the organisers' program.
from scipy.spatial import KDTree
from tumour.scans.grid import Mask, bounding_box

Row = dict[str, Any]
TOLERANCES = (0.5, 1.0)  # mm, of the normalised surface distance (NSD)
PERFECT = {"dice": 1.0, "hd95": 0.0, **{f"nsd_{mm}": 1.0 for mm in TOLERANCES}}


def region_scores(
    reference: Mask, prediction: Mask, spacing: Sequence[float], penalty: float = 374.0, voxels: int | None = None
) -> Row:
    """Score one region. Two empty masks get the best scores; if only one is empty, the scores are the worst.

    Args:
        reference, prediction: masks (x, y, z).
        spacing: edge lengths of a voxel, mm.
        penalty: HD95 in mm if only one mask is empty.
        voxels: number of voxels of the grid, if the masks are a part of it and the rest is empty in both.

    Returns:
        Those of `overlap_scores` and of `surface_scores`.
    """
    overlap = overlap_scores(reference, prediction, spacing, voxels)
    return overlap | surface_scores(reference, prediction, spacing, penalty)


def overlap_scores(reference: Mask, prediction: Mask, spacing: Sequence[float], voxels: int | None = None) -> Row:
    """Compare the voxels of two masks; the arguments are those of `region_scores`.

    Returns:
        Overlap: dice (the same as F1), iou, precision, sensitivity, specificity, accuracy.
        Volumes in ml: reference_ml, predicted_ml, and error_ml, which is predicted minus reference.
    """
    present, predicted = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    both = int(np.count_nonzero(reference & prediction))
    voxels = voxels or reference.size
    either, ml = present + predicted - both, math.prod(map(float, spacing)) / 1000

    def ratio(part: int, total: int) -> float:
        return part / total if total else float(either == 0)

    return {
        "dice": ratio(2 * both, present + predicted),
        "iou": ratio(both, either),
        "precision": ratio(both, predicted),
        "sensitivity": ratio(both, present),
        "specificity": ratio(voxels - either, voxels - present),
        "accuracy": ratio(voxels - either + both, voxels),
        "reference_ml": present * ml,
        "predicted_ml": predicted * ml,
        "error_ml": (predicted - present) * ml,
    }


def surface_scores(reference: Mask, prediction: Mask, spacing: Sequence[float], penalty: float = 374.0) -> Row:
    """Compare the surfaces of two masks.

    Args:
        reference, prediction: masks (x, y, z).
        spacing: edge lengths of a voxel, mm.
        penalty: HD95 in mm if only one mask is empty.

    Returns:
        hd95: the distance in mm within which 95% of the area of each surface is from the other surface (Nikolov et
        al., 2018), with areas between voxel corners, as in the 2023 program. nsd_T: the share of border voxels within
        T mm of the other mask's border, averaged over both masks (Isensee et al., 2021), as in the 2024 program.
    """
    if not (reference.any() and prediction.any()):
        perfect = not (reference.any() or prediction.any())
        return {"hd95": 0.0 if perfect else penalty, **{f"nsd_{mm}": float(perfect) for mm in TOLERANCES}}
    masks = _padded(reference, prediction)
    corners, areas = zip(*(_corners(mask, tuple(map(float, spacing))) for mask in masks), strict=True)
    hd95 = max(map(_within, _distances(corners, spacing), areas))
    limits = [mm + 1e-6 for mm in TOLERANCES]  # a voxel at 1 mm is within 1 mm, although spacings are stored as float32
    distances = _distances([_border(mask) for mask in masks], spacing, max(limits))
    shares = [float(np.mean([np.mean(distance <= mm) for distance in distances])) for mm in limits]
    return {"hd95": hd95, **{f"nsd_{mm}": share for mm, share in zip(TOLERANCES, shares, strict=True)}}


def border_distances(reference: Mask, prediction: Mask, spacing: Sequence[float]) -> list[NDArray[np.float64]]:
    """The distances in mm from the border voxels of each of two masks to the nearest border voxel of the other."""
    return _distances([_border(mask) for mask in _padded(reference, prediction)], spacing)


def _padded(*masks: Mask) -> list[Mask]:
    """Masks cropped to the box that contains all, with a margin of one voxel."""
    box = bounding_box(np.logical_or.reduce(masks))
    return [np.pad(mask[box], 1) for mask in masks]


def _corners(padded: Mask, spacing: tuple[float, ...]) -> tuple[Mask, NDArray[np.float64]]:
    """The voxel corners on the surface of a mask, and the area of the surface at each of them, mm²."""
    code = np.zeros([size - 1 for size in padded.shape], np.uint8)  # a bit for each of the 8 voxels around a corner
    for offsets in product((0, 1), repeat=3):
        code <<= 1
        code |= padded[tuple(slice(o, o + n) for o, n in zip(offsets, code.shape, strict=True))]
    surface = (code > 0) & (code < 255)
    return surface, _areas(spacing)[code[surface]]


@cache
def _areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """The area of the surface at a corner in mm², (256,), by the bits of the voxels around it."""
    return create_table_neighbour_code_to_surface_area(spacing)[0].double().numpy()


def _border(padded: Mask) -> Mask:
    """Voxels of a mask that have a face in common with the background."""
    neighbours = [np.roll(padded, shift, axis) for axis in range(padded.ndim) for shift in (-1, 1)]
    return padded & ~np.logical_and.reduce(neighbours)


def _distances(pair: Sequence[Mask], spacing: Sequence[float], reach: float = math.inf) -> list[NDArray[np.float64]]:
    """The distances in mm from the points of each mask to the nearest of the other mask; inf beyond `reach`."""
    indices = [np.flatnonzero(mask) for mask in pair]
    points = [np.stack(np.unravel_index(index, pair[0].shape), axis=1) * spacing for index in indices]
    distances = []
    for start, end in ((0, 1), (1, 0)):
        outside = ~pair[end].ravel()[indices[start]]  # points in both masks have the distance 0
        tree = KDTree(points[end], leafsize=32)
        distance = np.zeros(outside.size)
        distance[outside] = tree.query(points[start][outside], distance_upper_bound=reach)[0]
        distances.append(distance)
    return distances


def _within(distances: NDArray[np.float64], areas: NDArray[np.float64], share: float = 0.95) -> float:
    """The smallest distance within which this share of the area is."""
    order = np.argsort(distances)
    index = np.searchsorted(np.cumsum(areas[order]) / np.sum(areas), share)
    return float(distances[order][min(int(index), len(order) - 1)])
