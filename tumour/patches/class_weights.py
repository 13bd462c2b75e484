"""Weights of the channels for losses that want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nibabel as nib
import numpy as np
import torch
from tqdm import tqdm

from tumour.errors import InputError


def channel_weights(
    given: Sequence[float],
    cases: Sequence[Mapping[str, Any]],
    label_values: Sequence[int],
    classes: Sequence[str],
    channels: Mapping[str, Sequence[str]],
) -> torch.Tensor:
    """The weight of each channel, of mean 1: those given, or the inverse of their frequency in the labels of the cases.

    Raises:
        InputError: their number is not that of the channels.
    """
    if given and len(given) != len(channels):
        raise InputError(f"channel_weights are {len(given)}, but the network has {len(channels)}: {list(channels)}.")
    if given:
        return torch.tensor(given, dtype=torch.float32)

    def count(case: Mapping[str, Any]) -> np.ndarray:
        label = np.asanyarray(nib.load(case["label"]).dataobj)  # type: ignore[attr-defined]
        return np.array([np.count_nonzero(label == value) for value in label_values], float)

    with ThreadPoolExecutor() as pool:
        counts = sum(tqdm(pool.map(count, cases), total=len(cases), desc="class weights", unit="case", disable=None))
    voxels = np.array([sum(counts[classes.index(name)] for name in names) for names in channels.values()])
    weights = 1 / np.maximum(voxels, 1)
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)
