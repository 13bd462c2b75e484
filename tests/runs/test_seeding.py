"""The same seed gives the same random numbers, and cuDNN may choose its fastest algorithms."""

import random
from types import SimpleNamespace

import numpy as np
import torch
from tumour.runs import seeding
from tumour.runs.seeding import SeedSteps, seed_everything


def drawn(seed):
    seed_everything(seed)
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_the_same_seed_gives_the_same_numbers_and_each_process_has_its_own(monkeypatch):
    first = drawn(0)
    assert drawn(0) == first
    monkeypatch.setattr(seeding, "rank", lambda: 1)
    assert all(one != other for one, other in zip(drawn(0), first, strict=True))


def test_cudnn_may_choose_its_fastest_algorithm():
    seed_everything(0)
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic


def test_the_numbers_of_a_step_depend_only_on_seed_and_process_and_its_number(monkeypatch):
    def numbers(steps, seed=0):
        for step in steps:
            SeedSteps(seed).seed_step(SimpleNamespace(state=SimpleNamespace(iteration=step)))
            yield random.random(), float(np.random.rand()), float(torch.rand(1))
            torch.rand(step)  # whatever comes between

    drawn = [*numbers(range(6))]
    assert [*numbers([4, 5])] == drawn[4:]
    other = [*numbers(range(6), seed=1)]
    monkeypatch.setattr(seeding, "rank", lambda: 1)
    assert len({*drawn, *other, *numbers(range(6))}) == 18
