"""Losses that MONAI lacks. They take logits, return a scalar and compute in float32, also under autocast."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.losses import DiceLoss, TverskyLoss
from scipy import ndimage
from torch import nn


class DiceBCELoss(nn.Module):
    """Soft Dice loss over the batch plus binary cross-entropy, for overlapping regions (Isensee et al., 2021).

    Dice sums intersections and volumes over the batch before it divides, so a single patch without a region does not
    push the network away from that region. The target is 0 or 1 per region; MONAI's DiceCELoss expects exclusive
    classes.

    Args:
        dice_weight: weight of the Dice loss.
        bce_weight: weight of the binary cross-entropy.
    """

    def __init__(self, dice_weight: float = 1.0, bce_weight: float = 1.0) -> None:
        super().__init__()
        self.dice_weight, self.bce_weight = dice_weight, bce_weight
        self.dice = DiceLoss(sigmoid=True, batch=True)
        self.bce = nn.BCEWithLogitsLoss()

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (B, R, *S) against a target (B, R, *S) of zeros and ones."""
        with torch.autocast(input.device.type, enabled=False):
            logits, target = input.float(), target.float()
            return self.dice_weight * self.dice(logits, target) + self.bce_weight * self.bce(logits, target)


class ComponentDiceBCELoss(DiceBCELoss):
    """DiceBCE of the complete patch plus its mean over lesions, each computed in the voxels nearest to that lesion.

    A lesion of ten voxels therefore has the same weight as one of a thousand. These voxels are the Voronoi cells of the
    26-connected components of the target, as in CC-Metrics (Jaus et al., 2025).

    Args:
        component_weight: weight of the mean over lesions.
        kwargs: arguments of DiceBCELoss.
    """

    def __init__(self, component_weight: float = 1.0, **kwargs: float) -> None:
        super().__init__(**kwargs)
        self.component_weight = component_weight

    def parts(self, components: np.ndarray) -> Iterator[np.ndarray]:
        """Yield for each numbered component (*S) the mask (*S) of the voxels in which its loss is computed."""
        nearest = ndimage.distance_transform_edt(components == 0, return_distances=False, return_indices=True)
        cells = components[tuple(nearest)]
        for number in range(1, components.max() + 1):
            yield cells == number

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (B, R, *S) against a target (B, R, *S) of zeros and ones."""
        losses = []
        for logits, truth in zip(input.flatten(0, 1), target.flatten(0, 1), strict=True):  # (*S)
            components = ndimage.label(truth.cpu().numpy() > 0, np.ones((3,) * truth.dim()))[0]
            for part in self.parts(components):
                where = torch.from_numpy(part).to(truth.device)
                losses.append(super().forward(logits[where][None, None], truth[where][None, None]))
        whole = super().forward(input, target)
        return whole + self.component_weight * torch.stack(losses).mean() if losses else whole


class BlobLoss(ComponentDiceBCELoss):
    """As ComponentDiceBCELoss, but each lesion uses all voxels except those of other lesions (Kofler et al., 2023)."""

    def parts(self, components: np.ndarray) -> Iterator[np.ndarray]:
        for number in range(1, components.max() + 1):
            yield (components == 0) | (components == number)


class FocalTverskyLoss(TverskyLoss):
    """Mean over channels of the Tversky loss raised to the power 1 / gamma (Abraham and Khan, 2019).

    Args:
        gamma: values above 1 give more weight to poorly segmented channels; 1 is the plain Tversky loss.
        kwargs: arguments of MONAI's TverskyLoss, except `batch` and `reduction`, which are set here.
    """

    def __init__(self, gamma: float = 4 / 3, **kwargs: Any) -> None:
        super().__init__(batch=True, reduction="none", **kwargs)
        self.gamma = gamma

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (B, C, *S) against a target (B, C, *S) of zeros and ones."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float(), target.float()).clamp(min=1e-6).pow(1 / self.gamma).mean()


class WeightedSum(nn.Module):
    """Weighted sum of several losses for the same logits and target."""

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.losses, self.weights = nn.ModuleList(losses), list(weights)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return sum(w * loss(input, target) for w, loss in zip(self.weights, self.losses, strict=True))
