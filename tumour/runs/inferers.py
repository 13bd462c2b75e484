"""How a network is run: precision by device, test-time augmentation, and the patches that it accepts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from tumour.errors import InputError, one_of

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def best_precision(device: torch.device | str) -> str:
    """The fastest precision that is safe on a device: bfloat16 where the hardware has it, else float16 on CUDA."""
    device = torch.device(device)
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "bfloat16"
    return "float32"


class MixedPrecision(Inferer):
    """Run another inferer with the network under autocast; what comes back is float32.

    MONAI's engines know autocast on CUDA alone (`amp`); this one knows CPUs too. Training in float16 needs the
    engine's `amp` besides, for its gradient scaler.

    Args:
        inferer: runs the network on whole inputs or on windows.
        device: where the network runs.
        precision: `float32`, `bfloat16` or `float16`.
    """

    def __init__(self, inferer: Inferer, device: torch.device | str, precision: str) -> None:
        super().__init__()
        device = torch.device(device)
        if precision == "float16" and device.type == "cpu":
            raise InputError("precision float16 needs a GPU; on a CPU take bfloat16 or float32.")
        self.inferer, self.device = inferer, device
        self.dtype = one_of(PRECISIONS, precision, "precision")

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs  # no layer need track metadata
            return self.inferer(plain.float(), network, *args, **kwargs).float()


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
            logits = self.inferer(inputs.flip(flip), network, *args, **kwargs)
            total = total + logits.flip(flip).to(total.device)  # on the CPU from where the GPU became too small
        return total / len(self.flips)


def check_patch_size(patch_size: Sequence[int], multiple: int) -> None:
    """Refuse a patch that the network's levels cannot halve, or whose deepest level would be a single voxel."""
    if any(edge % multiple or edge < 2 * multiple for edge in patch_size):
        least = 2 * multiple
        raise InputError(
            f"patch_size is {list(patch_size)}; its edges must be multiples of {multiple}, {least} or more."
        )
