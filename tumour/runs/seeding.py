"""Seed the random number generators."""

from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.utils import manual_seed
from monai.utils import set_determinism
from tumour.processes import rank


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy, PyTorch and MONAI's random transforms; each process gets a different seed.

    cuDNN may select its fastest algorithms, so two runs on a GPU with the same seed can differ in the last digits.
    """
    set_determinism(seed + rank())
    cudnn = torch.backends.cudnn
    cudnn.benchmark, cudnn.deterministic = True, False  # MONAI sets the opposite


class SeedSteps:
    """Handler that seeds before every step, so that a resumed training draws the same numbers, as for dropout.

    The random numbers of the patches are seeded by `tumour.patches.datasets.Draws`.

    Args:
        seed: the seed of the training; each process and each step has its own, derived from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.seed_step)

    def seed_step(self, engine: Any) -> None:
        manual_seed(int(np.random.SeedSequence([self.seed, rank(), engine.state.iteration]).generate_state(1)[0]))
