"""Weights of the channels for losses that need them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from tumour.cases.case import Case, item_of
from tumour.cohort import Cohort
from tumour.errors import InputError, OptionError
from tumour.scans.readers import read_classes


def channel_weights(
    given: Sequence[float],
    cases: Sequence[Case | Mapping[str, Any]],
    cohort: Cohort,
    channels: Mapping[str, Sequence[str]],
) -> torch.Tensor:
    """The weights (C,), float32, of the channels: the given ones, or the inverse of their frequencies in the labels.

    The computed weights have the mean 1 over the channels that the labels contain. The others have the largest of these
    weights: with 0, the network would predict them anywhere.

    Args:
        given: a weight per channel; empty to compute them.
        cases: cases or a client's items, with labels.
        cohort: naming and meaning of the files.
        channels: class names of each channel, by the channel's name.

    Raises:
        OptionError: the number of given weights is not the number of channels, or all are 0.
        InputError: the labels contain none of the channels.
    """
    if given and len(given) != len(channels):
        raise OptionError(f"channel_weights has {len(given)} values, but the network has the channels {[*channels]}.")
    if given and not any(given):
        raise OptionError("channel_weights has only zeros, so nothing would be learned; give one over 0.")
    if given:
        return torch.tensor(given, dtype=torch.float32)

    def count(case: Case | Mapping[str, Any]) -> np.ndarray:
        label = read_classes(str(item_of(case)["label"]), cohort)
        return np.bincount(label.data.ravel(), minlength=len(cohort.classes)).astype(float)

    with ThreadPoolExecutor() as pool:
        counts = sum(tqdm(pool.map(count, cases), total=len(cases), desc="class weights", unit="case", disable=None))
    voxels = np.array([counts[cohort.members(names)].sum() for names in channels.values()])
    if not voxels.any():
        wanted = " or ".join(channels)
        raise InputError(f"None of the {len(cases):,} labels contains {wanted}; check them and --cohort.")
    present = voxels[voxels > 0]
    weights = 1 / np.maximum(voxels, present.min())
    return torch.tensor(weights / (1 / present).mean(), dtype=torch.float32)
