"""Make regions from probabilities, with a threshold, a minimum piece and a minimum total volume for each region."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from tumour.errors import OptionError, require_finite
from tumour.processes import rank
from tumour.records import read_json
from tumour.scans.grid import pieces_of

FILE = "after_treatment.json"  # next to model.pt
SHAPE = {str: {str: (float, {str: float})}}  # numbers only: it comes with weights, and MONAI would run its text
logger = logging.getLogger("bundle")


def voxel_volume(image: torch.Tensor) -> float:
    """Volume of a voxel in mm³; 1 if the tensor has no affine."""
    return abs(float(torch.linalg.det(image.affine[:3, :3].double()))) if isinstance(image, MetaTensor) else 1.0


class PerRegion(MapTransform):
    """Base of transforms of regions (R, *S) that have one setting per region.

    Args:
        keys: keys of the regions.
        regions: class names of each region, by the region's name, in the order of the channels.
        values: the setting of each region, by the region's name; other regions get `default`.

    Raises:
        InputError: a region is unknown, or a value is negative or not a number.
    """

    default = 0.0

    def __init__(
        self,
        keys: KeysCollection,
        regions: Mapping[str, Sequence[str]],
        values: Mapping[str, float],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        unknown = set(values) - set(regions)
        if unknown:
            raise OptionError(
                f"after_treatment has the unknown region {', '.join(unknown)}; the regions are {', '.join(regions)}."
            )
        wrong = [v for v in values.values() if isinstance(v, bool) or not isinstance(v, int | float) or not v >= 0]
        if wrong:
            raise OptionError(f"after_treatment has the value {wrong[0]!r}; its values must be numbers of 0 or more.")
        self.values = [float(values.get(name, self.default)) for name in regions]
        self.members = [set(names) for names in regions.values()]

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.treat(out[key], str(data.get("case", "")))
        return out

    def treat(self, regions: torch.Tensor, case: str) -> torch.Tensor:
        """Return the treated regions (R, *S); `case` is the case id for messages."""
        raise NotImplementedError

    def drop(self, regions: torch.Tensor, index: int, dropped: torch.Tensor) -> None:
        """Remove voxels from a region and from all regions inside it, in place.

        So dropping whole tumour also drops the core inside it, and dropped enhancing tumour becomes necrotic core.

        Args:
            regions: (R, *S), zeros and ones.
            index: the channel of the region.
            dropped: voxels to remove, bool (*S).
        """
        for other, members in enumerate(self.members):
            if members <= self.members[index]:
                regions[other][dropped] = 0


class ThresholdRegionsd(PerRegion):
    """Turn probabilities (R, *S) into ones where they reach the threshold of the region, else zeros."""

    default = 0.5

    def treat(self, regions: torch.Tensor, case: str) -> torch.Tensor:
        require_finite(regions, case)
        thresholds = torch.tensor(self.values, device=regions.device).reshape(-1, *[1] * (regions.ndim - 1))
        return (regions >= thresholds).to(torch.uint8)


class DropSmallPiecesd(PerRegion):
    """Drop the 26-connected pieces of regions (R, *S) that are smaller than the region's minimum in mm³."""

    def treat(self, regions: torch.Tensor, case: str) -> torch.Tensor:
        regions, voxel = regions.clone(), voxel_volume(regions)
        for index, minimum in enumerate(self.values):
            if minimum:
                pieces = pieces_of(regions[index].cpu().numpy())[0]
                small = np.bincount(pieces.ravel()) < math.ceil(round(minimum / voxel, 6))
                small[0] = False  # the background
                self.drop(regions, index, torch.from_numpy(small[pieces]).to(regions.device))
        return regions


class EmptySmallRegionsd(PerRegion):
    """Drop regions (R, *S) whose total volume is smaller than the region's minimum in mm³."""

    def treat(self, regions: torch.Tensor, case: str) -> torch.Tensor:
        regions, voxel = regions.clone(), voxel_volume(regions)
        for index, minimum in enumerate(self.values):
            if minimum:
                present = regions[index] > 0
                if int(present.sum()) * voxel < minimum - 1e-6:
                    self.drop(regions, index, present)
        return regions


KINDS = {"threshold": ThresholdRegionsd, "smallest_piece": DropSmallPiecesd, "smallest_region": EmptySmallRegionsd}


def treatment_steps(
    keys: KeysCollection, regions: Mapping[str, Sequence[str]], treatment: Mapping[str, Any]
) -> list[PerRegion]:
    """The three transforms of an after-treatment in order, for the settings `after_treatment` of inference.yaml."""
    return [kind(keys, regions, treatment[name]) for name, kind in KINDS.items()]


def treatment_of(kind: str, folder: str) -> Mapping[str, float]:
    """The values by region of one kind of after-treatment next to the weights in a folder; none without a file.

    Raises:
        InputError: the file is damaged, or has something else than numbers by region.
    """
    path = Path(folder, FILE)
    values = read_json(path, SHAPE).get(kind, {}) if folder and path.is_file() else {}
    if values and not rank():
        logger.info(f"after-treatment of '{path}': {kind} {values}")
    return values
