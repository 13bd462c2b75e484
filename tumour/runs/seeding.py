"""Seed the random number generators."""

import torch
from monai.utils import set_determinism
from tumour.processes import rank


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy, PyTorch and MONAI's random transforms; each process gets a different seed.

    cuDNN may select its fastest algorithms, so two runs on a GPU with the same seed can differ in the last digits.
    """
    set_determinism(seed + rank())
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = (
        True,
        False,
    )  # MONAI sets the opposite
