"""Where random numbers start, and how far a run can be repeated."""

from __future__ import annotations

import torch
from monai.utils import set_determinism
from tumour.processes import rank


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy, PyTorch and MONAI's random transforms; each of several processes gets its own seed.

    cuDNN may choose its fastest algorithms, so two runs on a GPU with the same seed can differ in the last digits.
    """
    set_determinism(seed + rank())
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False  # MONAI has set the opposite
