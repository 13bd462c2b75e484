"""From probability maps to regions: a threshold, a least piece and a least whole for each region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage
from tumour.errors import CaseError, InputError


def voxel_volume(image: torch.Tensor) -> float:
    """mm³ of a voxel; 1 where the tensor carries no affine."""
    return abs(float(torch.linalg.det(image.affine[:3, :3].double()))) if isinstance(image, MetaTensor) else 1.0


def require_finite(values: torch.Tensor, case: str) -> None:
    """Refuse what a network says of a case if any of it is NaN or infinite."""
    if not torch.isfinite(values.sum()):  # of probabilities; one that is not finite makes the sum so
        raise CaseError(
            f"{case}: the network's values are not finite; look at the intensities of its scans, and if other "
            "cases fail too, take another model.pt."
        )


class PerRegion(MapTransform):
    """A transform of (R, *S) whose channels are regions, with a number for each of them.

    Args:
        keys: what to transform.
        regions: class names of each region, by the region's name, in the order of the channels.
        values: a number by region; a region without one takes `default`.

    Raises:
        InputError: a value is no number from 0 up, or names no region.
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
            raise InputError(f"after_treatment names {', '.join(unknown)}; the regions are {', '.join(regions)}.")
        wrong = [v for v in values.values() if isinstance(v, bool) or not isinstance(v, int | float) or not v >= 0]
        if wrong:
            raise InputError(f"after_treatment holds {wrong[0]!r}; its values must be numbers from 0 up.")
        self.values = [float(values.get(name, self.default)) for name in regions]
        self.members = [set(names) for names in regions.values()]

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.treat(out[key], str(data.get("case", "")))
        return out

    def treat(self, regions: torch.Tensor, case: str) -> torch.Tensor:
        raise NotImplementedError

    def without(self, regions: torch.Tensor, index: int, dropped: torch.Tensor) -> None:
        """Take voxels from a region and from all regions inside it, in place.

        So a dropped whole tumour leaves no core behind, and dropped enhancing tumour becomes necrotic core.
        """
        for other, members in enumerate(self.members):
            if members <= self.members[index]:
                regions[other][dropped] = 0


class ThresholdRegionsd(PerRegion):
    """Probabilities (R, *S) to zeros and ones: one from the region's threshold up."""

    default = 0.5

    def treat(self, regions: torch.Tensor, case: str) -> torch.Tensor:
        require_finite(regions, case)
        levels = torch.tensor(self.values, device=regions.device).reshape(-1, *[1] * (regions.ndim - 1))
        return (regions >= levels).to(torch.uint8)


class DropSmallPiecesd(PerRegion):
    """Drop the 26-connected pieces of each region (R, *S) of zeros and ones that are smaller than so many mm³."""

    def treat(self, regions: torch.Tensor, case: str) -> torch.Tensor:
        regions, voxel = regions.clone(), voxel_volume(regions)
        for index, least in enumerate(self.values):
            if least:
                pieces = ndimage.label(regions[index].cpu().numpy(), np.ones((3,) * (regions.ndim - 1)))[0]
                small = np.bincount(pieces.ravel()) < math.ceil(round(least / voxel, 6))
                small[0] = False
                self.without(regions, index, torch.from_numpy(small[pieces]).to(regions.device))
        return regions


class EmptySmallRegionsd(PerRegion):
    """Empty each region (R, *S) of zeros and ones that is smaller than so many mm³ in all."""

    def treat(self, regions: torch.Tensor, case: str) -> torch.Tensor:
        regions, voxel = regions.clone(), voxel_volume(regions)
        for index, least in enumerate(self.values):
            if least:
                present = regions[index] > 0
                if int(present.sum()) * voxel < least - 1e-6:
                    self.without(regions, index, present)
        return regions


def steps(keys: KeysCollection, regions: Mapping[str, Sequence[str]], treatment: Mapping[str, Any]) -> list[PerRegion]:
    """The three steps of a treatment in their order, as `after_treatment` in inference.yaml names them."""
    kinds = {"threshold": ThresholdRegionsd, "smallest_piece": DropSmallPiecesd, "smallest_region": EmptySmallRegionsd}
    return [kind(keys, regions, treatment[name]) for name, kind in kinds.items()]
