"""Prepare a case for pictures: cropped to the head, in RAS order, one byte per voxel, regions as masks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy.special import entr
from tumour.cases.case import Case
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.files import probability_file
from tumour.scans.grid import Mask, bounding_box, difference
from tumour.scans.readers import background_of, read_classes, read_scan

LARGEST = 256  # maximum side length in voxels; larger volumes are subsampled
SAME = 0.8  # Dice of a label map and its probabilities from 0.5 on; an after-treatment changes little


@dataclass(frozen=True)
class Volumes:
    """A case on one grid; its axes (x, y, z) are left to right, back to front, foot to head.

    Args:
        case: case id.
        images: bytes (x, y, z) by modality; 0 is outside the head.
        masks: (x, y, z) by `reference` and `prediction`, as far as they exist, then by region, the largest first.
        affine: (4, 4), from voxel indices to world coordinates in mm.
        uncertainty: (x, y, z), the entropy of the least certain region, 255 for one bit; None without probabilities.
        before: (x, y, z) by region, of the time point before; empty for the first.
        dice: of the prediction with the reference, by region; empty if one of the two is missing.
        note: which files belong to another prediction and are not shown; empty if none.
    """

    case: str
    images: dict[str, NDArray[np.uint8]]
    masks: dict[str, dict[str, Mask]] = field(default_factory=dict)
    affine: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    uncertainty: NDArray[np.uint8] | None = None
    before: dict[str, Mask] = field(default_factory=dict)
    dice: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return next(iter(self.images.values())).shape

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel, (3,), mm."""
        return voxel_sizes(self.affine)

    def centre(self) -> tuple[int, int, int]:
        """The slice of each axis with most tumour in the reference, else in the prediction; without any, the middle."""
        for regions in self.masks.values():
            tumour = np.logical_or.reduce(list(regions.values()))
            if tumour.any():
                x, y, z = (int(tumour.sum(axis=others).argmax()) for others in ((1, 2), (0, 2), (0, 1)))
                return x, y, z
        x, y, z = (edge // 2 for edge in self.shape)
        return x, y, z


def read_case(
    case: Case,
    prediction: str | os.PathLike | None,
    cohort: Cohort,
    modalities: Sequence[str],
    before: str | os.PathLike | None = None,
) -> Volumes:
    """Read the scans of a case, its label if it has one, and its predicted label map.

    Args:
        case: the case; missing modalities are not drawn.
        prediction: path of the predicted label map, or None; its probabilities are read too, if they were written.
        cohort: naming and meaning of the files.
        modalities: the modalities to draw, in order.
        before: path of the label map of the time point before, if there is one.

    Raises:
        InputError: a file cannot be read or has another grid than the first scan.
    """
    try:
        scans = [read_scan(path).in_ras() for path in case.images]
        paths = {"reference": case.label, "prediction": prediction, "before": before}
        labels = {kind: read_classes(str(path), cohort).in_ras() for kind, path in paths.items() if path is not None}
        files = [
            probability_file(Path(prediction).parent, case.name, region) for region in cohort.regions if prediction
        ]
        probable = [read_scan(str(file)).in_ras() for file in files if file.is_file()]
        faults = [difference(scans[0], other) for other in [*scans[1:], *labels.values(), *probable]]
    except InputError as error:
        raise InputError(f"{case.name}: {error}.") from error
    if any(faults):
        raise InputError(f"{case.name}: {next(filter(None, faults))}.")
    if case.modalities:
        images = {m: scan.data for m, scan in zip(case.modalities, scans, strict=True) if m in modalities}
    else:
        indices = zip(modalities, cohort.channel_indices(modalities), strict=True)
        images = {m: scans[0].volumes[..., n] for m, n in indices}
    order = sorted(cohort.regions, key=lambda region: -len(cohort.regions[region]))
    drawn = {kind: cohort.masks(label.data) for kind, label in labels.items()}
    masks = {kind: {region: regions[region] for region in order} for kind, regions in drawn.items()}
    images = {m: np.asarray(a, np.float32) - np.float32(background_of(a)) for m, a in images.items()}
    probabilities, note = [scan.data for scan in probable], ""
    if probabilities and _dice(np.maximum.reduce(probabilities) >= 0.5, labels["prediction"].data > 0) < SAME:
        note = "its probabilities are of another label map and are not shown; segment it again with them"
        probabilities = []
    volumes = _compact(case.name, images, masks, scans[0].affine, _uncertainty(probabilities))
    both = drawn.keys() >= {"reference", "prediction"}
    dice = {name: _dice(drawn["reference"][name], drawn["prediction"][name]) for name in order if both}
    return replace(volumes, dice=dice, note=note)


def _dice(first: Mask, second: Mask) -> float:
    """The Dice of two masks; 1 if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else 1.0


def _uncertainty(probabilities: Sequence[NDArray]) -> NDArray[np.uint8] | None:
    """The largest entropy of the regions, 255 for one bit; None if there is no region."""
    if not probabilities:
        return None
    bits = [(entr(p) + entr(1 - p)) / np.log(2) for p in (np.clip(each, 0, 1) for each in probabilities)]
    return np.round(255 * np.maximum.reduce(bits)).astype(np.uint8)


def _compact(
    case: str, images: dict, masks: dict, affine: NDArray[np.float64], uncertainty: NDArray[np.uint8] | None
) -> Volumes:
    """Crop to the head and the labels with a margin, subsample large volumes, and turn intensities into bytes."""
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
    bytes_of = {name: to_bytes(array[box]) for name, array in images.items()}
    earlier = cut.pop("before", {})
    return Volumes(case, bytes_of, cut, grid, None if uncertainty is None else uncertainty[box], earlier)


def to_bytes(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map the intensities above 0 to 8..255, clipped at the percentiles 0.5 and 99.5; other voxels become 0."""
    head = array > 0
    if not head.any():
        return np.zeros(array.shape, np.uint8)
    low, high = np.percentile(array[head], [0.5, 99.5])
    grey = np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    return (head * (8 + 247 * grey)).astype(np.uint8)
