"""Run a network: precision for each device, test-time augmentation, and a check of patch and window sizes."""

import logging
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from tumour.errors import OptionError, one_of

# On a CPU, oneDNN 3.12 takes wrong values from unused memory into the bfloat16 gradient of a 3-D convolution's weights
# where the map has two voxels along its first axis, as the deepest level has for such patches.
SMALL = 32
logger = logging.getLogger("bundle")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def best_precision(device: torch.device | str) -> str:
    """The fastest safe precision on a device: bfloat16 if the hardware supports it, else float16 on CUDA or float32."""
    device = torch.device(device)
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "bfloat16"
    return "float32"


class MixedPrecision(Inferer):
    """Run another inferer with autocast and return float32.

    MONAI's engines support autocast only on CUDA (`amp`); this class also supports CPUs. Training in float16 also needs
    the engine's `amp`, for its gradient scaler. On a CPU, patches with a first side of 32 voxels or less are trained in
    float32, because their gradients would be wrong in bfloat16.

    Args:
        inferer: runs the network on complete inputs or in windows.
        device: the device of the network.
        precision: `float32`, `bfloat16` or `float16`.

    Raises:
        InputError: the precision is unknown, or float16 on a CPU.
    """

    def __init__(self, inferer: Inferer, device: torch.device | str, precision: str) -> None:
        super().__init__()
        device = torch.device(device)
        if precision == "float16" and device.type == "cpu":
            raise OptionError("precision float16 needs a GPU; on a CPU use bfloat16 or float32.")
        self.inferer, self.device = inferer, device
        self.dtype = one_of(PRECISIONS, precision, "precision")

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        enabled = self.dtype is not torch.float32
        small = any(size <= SMALL for size in inputs.shape[2:3])
        if enabled and small and self.device.type == "cpu" and torch.is_grad_enabled():
            logger.warning(f"patches of {SMALL} voxels are trained in float32: their gradients are wrong in bfloat16.")
            enabled, self.dtype = False, torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled):
            plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs  # layers need no metadata
            return self.inferer(plain.float(), network, *args, **kwargs).float()


class MirrorInferer(Inferer):
    """Average the logits of another inferer over all combinations of flips.

    Args:
        inferer: runs the network on complete inputs or in windows.
        axes: spatial axes to flip, from 0, 1, 2; three axes need 8 passes, none needs one.
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


def check_sizes(sizes: Mapping[str, Sequence[int]], multiple: int) -> None:
    """Check that every level of the network can halve a patch, and that the deepest level has two voxels or more.

    Args:
        sizes: side lengths in voxels, by the name of the setting.
        multiple: the product of the strides of the network.

    Raises:
        InputError: a side length is not a multiple of `multiple`, or less than two of them.
    """
    for name, lengths in sizes.items():
        if any(length % multiple or length < 2 * multiple for length in lengths):
            wanted = f"multiples of {multiple} and at least {2 * multiple}"
            raise OptionError(f"{name} is {list(lengths)}; its side lengths must be {wanted}.")
