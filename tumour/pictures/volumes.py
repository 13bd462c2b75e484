"""One case as it is drawn: cropped to the head, in RAS order, one byte a voxel, regions as masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from tumour.cases.case import Case
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.scans.grid import Mask, bounding_box, difference
from tumour.scans.readers import background_of, read_classes, read_scan

LARGEST = 256  # voxels an edge of what is drawn; a finer grid is thinned out


@dataclass(frozen=True)
class Volumes:
    """A case on one grid: (x, y, z) from left to right, from back to front, from foot to head.

    Attributes:
        case: its id.
        images: bytes by modality; 0 is outside the head.
        masks: by `reference` and `prediction`, where there is one, then by region, the largest region first.
        affine: of the grid, in mm.
    """

    case: str
    images: dict[str, NDArray[np.uint8]]
    masks: dict[str, dict[str, Mask]] = field(default_factory=dict)
    affine: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))

    @property
    def shape(self) -> tuple[int, ...]:
        return next(iter(self.images.values())).shape

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Edges of a voxel, in mm."""
        return voxel_sizes(self.affine)

    def centre(self) -> tuple[int, int, int]:
        """For each axis the slice with most tumour: of the reference, else of the prediction, else the middle."""
        for regions in self.masks.values():
            whole = np.logical_or.reduce(list(regions.values()))
            if whole.any():
                x, y, z = (int(whole.sum(axis=others).argmax()) for others in ((1, 2), (0, 2), (0, 1)))
                return x, y, z
        x, y, z = (edge // 2 for edge in self.shape)
        return x, y, z


def read_case(case: Case, prediction: str | os.PathLike | None, cohort: Cohort, modalities: Sequence[str]) -> Volumes:
    """Read the scans of a case, its label if it has one, and a label map that was predicted for it.

    Args:
        case: the case; a modality that it lacks is not drawn.
        prediction: a label map.
        cohort: what the files mean.
        modalities: those to draw, in order.

    Raises:
        InputError: a file cannot be read, or is not on the grid of the first scan.
    """
    try:
        scans = [read_scan(path).in_ras() for path in case.images]
        paths = {"reference": case.label, "prediction": prediction}
        labels = {kind: read_classes(str(path), cohort).in_ras() for kind, path in paths.items() if path is not None}
        faults = [difference(scans[0], other) for other in [*scans[1:], *labels.values()]]
    except InputError as error:
        raise InputError(f"{case.name}: {error}.") from error
    if any(faults):
        raise InputError(f"{case.name}: {next(filter(None, faults))}.")
    if case.modalities:
        images = {m: scan.data for m, scan in zip(case.modalities, scans, strict=True) if m in modalities}
    else:
        images = {m: scans[0].data[..., n] for m, n in zip(modalities, cohort.channel_indices(modalities), strict=True)}
    order = sorted(cohort.regions, key=lambda region: -len(cohort.regions[region]))
    masks = {kind: {r: cohort.masks(label.data)[r] for r in order} for kind, label in labels.items()}
    images = {m: np.asarray(a, np.float32) - np.float32(background_of(a)) for m, a in images.items()}
    return _compact(case.name, images, masks, scans[0].affine)


def _compact(case: str, images: dict, masks: dict, affine: NDArray[np.float64]) -> Volumes:
    """Crop to the head and the labels with a margin, thin out a fine grid, turn intensities into bytes."""
    shown = np.logical_or.reduce([array > 0 for array in images.values()])
    for regions in masks.values():
        shown = np.logical_or.reduce([shown, *regions.values()])
    edges = bounding_box(shown if shown.any() else ~shown, margin=2)
    start, stop = (np.array([getattr(edge, end) for edge in edges]) for end in ("start", "stop"))
    steps = -(-(stop - start) // LARGEST)
    box = tuple(slice(*edges) for edges in zip(start, stop, steps, strict=True))
    grid = affine.copy()
    grid[:3, 3] = affine[:3, :3] @ start + affine[:3, 3]
    grid[:3, :3] = affine[:3, :3] * steps
    cut = {kind: {region: mask[box] for region, mask in regions.items()} for kind, regions in masks.items()}
    return Volumes(case, {name: to_bytes(array[box]) for name, array in images.items()}, cut, grid)


def to_bytes(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Intensities of the head, less the extreme percent, from 8 to 255; 0 where there is none."""
    head = array > 0
    if not head.any():
        return np.zeros(array.shape, np.uint8)
    low, high = np.percentile(array[head], [0.5, 99.5])
    grey = np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    return (head * (8 + 247 * grey)).astype(np.uint8)
