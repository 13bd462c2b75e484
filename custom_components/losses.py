"""Losses that MONAI lacks: logits in, scalar out, float32 inside whatever the precision outside."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import nn


class DiceBCELoss(nn.Module):
    """Soft Dice loss over the batch plus binary cross-entropy, for regions that overlap (Isensee et al., 2021).

    Dice sums intersections and volumes over the whole batch before it divides, so a patch without a region does not
    push the region away by itself. Targets are 0 or 1 a region; MONAI's DiceCELoss would take them as exclusive.

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
