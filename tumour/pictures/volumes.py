"""One case as it is drawn: cropped to the head, in RAS order, one byte a voxel, regions as masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from tumour.cases.folder import channel_indices
from tumour.errors import InputError
from tumour.scans.label_map import read_classes

Mask = NDArray[np.bool_]
LARGEST = 256  # voxels an edge of what is drawn; a finer grid is thinned out


@dataclass(frozen=True)
class Task:
    """What the files of a data set mean: its convention, the modalities in use, classes and regions."""

    convention: Mapping[str, Any]
    modalities: Sequence[str]
    classes: Sequence[str]
    regions: Mapping[str, Sequence[str]]

    def masks(self, label: NDArray[np.uint8]) -> dict[str, Mask]:
        """Each region of a label map of positions in `classes`, the largest first, so that none is hidden."""
        order = sorted(self.regions, key=lambda region: -len(self.regions[region]))
        return {r: np.isin(label, [self.classes.index(name) for name in self.regions[r]]) for r in order}


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


def read_case(case: Mapping[str, Any], prediction: str | os.PathLike | None, task: Task) -> Volumes:
    """Read the scans of a case, its reference if it has a label, and a label map that was predicted for it.

    Raises:
        InputError: a file cannot be read, or is not on the grid of the first scan.
    """
    paths = [case["image"]] if isinstance(case["image"], str) else list(case["image"])
    scans = [_canonical(case["case"], Path(path)) for path in paths]
    named = {"reference": case.get("label"), "prediction": prediction}
    label_paths = {kind: str(path) for kind, path in named.items() if path is not None}
    labels = {kind: _canonical_label(case["case"], Path(path), task) for kind, path in label_paths.items()}
    grid = scans[0]
    for path, image in zip([*paths[1:], *label_paths.values()], [*scans[1:], *labels.values()], strict=True):
        if image.shape[:3] != grid.shape[:3] or not np.allclose(image.affine, grid.affine, atol=0.01):  # mm
            raise InputError(f"{case['case']}: '{path}' is not on the grid of '{paths[0]}'; resample it to that.")
    arrays = [np.asarray(scan.dataobj, dtype=np.float32) for scan in scans]
    if arrays[0].ndim == 4:
        arrays = list(np.moveaxis(arrays[0], -1, 0))
    indices = channel_indices(task.convention, task.modalities)
    images = {name: arrays[index] for name, index in zip(task.modalities, indices, strict=True)}
    masks = {kind: task.masks(np.asarray(label.dataobj)) for kind, label in labels.items()}
    return _compact(case["case"], images, masks, grid.affine)


def _canonical(case: str, path: Path) -> Any:
    try:
        image: Any = nib.as_closest_canonical(nib.load(path))  # type: ignore[attr-defined]
        np.asanyarray(image.dataobj)
    except Exception as error:
        raise InputError(f"{case}: '{path}' cannot be read ({type(error).__name__}); download it again.") from error
    return image


def _canonical_label(case: str, path: Path, task: Task) -> Any:
    classes, image = read_classes(case, path, task.convention["label_values"])
    return nib.as_closest_canonical(nib.Nifti1Image(classes, image.affine))  # type: ignore[attr-defined]


def _compact(case: str, images: dict, masks: dict, affine: NDArray[np.float64]) -> Volumes:
    """Crop to the head and the labels with a margin, thin out a fine grid, turn intensities into bytes."""
    shown = np.logical_or.reduce([array > 0 for array in images.values()])
    for regions in masks.values():
        shown = np.logical_or.reduce([shown, *regions.values()])
    corners = np.argwhere(shown) if shown.any() else np.array([[0, 0, 0], shown.shape]) - [[0], [1]]
    start = np.maximum(corners.min(axis=0) - 2, 0)
    stop = np.minimum(corners.max(axis=0) + 3, shown.shape)
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
