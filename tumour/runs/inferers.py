"""Test-time augmentation as an inferer, so that any engine or client can use it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from monai.inferers import Inferer


class MirrorInferer(Inferer):
    """Average the logits of another inferer over every combination of flips.

    Args:
        inferer: runs the network on whole inputs or on windows.
        axes: spatial axes to flip, of 0, 1, 2; three give 8 passes, none gives one.
    """

    def __init__(self, inferer: Inferer, axes: Sequence[int]) -> None:
        super().__init__()
        self.inferer = inferer
        self.flips = [f for n in range(len(axes) + 1) for f in combinations([axis + 2 for axis in axes], n)]

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        total = self.inferer(inputs, network, *args, **kwargs)
        for flip in self.flips[1:]:
            total = total + self.inferer(inputs.flip(flip), network, *args, **kwargs).flip(flip)
        return total / len(self.flips)
