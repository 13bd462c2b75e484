"""Mixed precision that does what it says on each device."""

from __future__ import annotations

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
