"""Transforms between the files' conventions and what the network sees; everything else is MONAI's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform, Spacingd
from monai.utils import convert_to_dst_type
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.scans.readers import background_of


class SelectChannelsd(MapTransform):
    """Keep the given channels of (C, *S), in the order given.

    Args:
        keys: what to select from.
        indices: channels to keep.
    """

    def __init__(self, keys: KeysCollection, indices: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.indices = list(indices)

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            image = out[key]
            if max(self.indices) >= image.shape[0]:
                raise ValueError(f"channel {max(self.indices)} is asked for, but there are {image.shape[0]}.")
            if self.indices != list(range(image.shape[0])):
                out[key] = image[self.indices]
        return out


class ZeroBackgroundd(MapTransform):
    """Shift each channel of (C, *S) so that its background is 0, where it has one of another value (z-scored scans).

    Args:
        keys: images.
    """

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            values = [background_of(np.asarray(channel)) for channel in out[key]]
            if any(values):
                out[key] = out[key] - torch.tensor(values, dtype=out[key].dtype).reshape(-1, 1, 1, 1)
        return out


class PlaceChannelsd(MapTransform):
    """Give a case that lacks modalities all its channels: the missing ones are zeros.

    Args:
        keys: (C, *S) with the channels that the item's `modalities` name; without that key all are there.
        channels: names of all channels, in order.
    """

    def __init__(self, keys: KeysCollection, channels: Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = list(channels)

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        present = out.get("modalities", self.channels)
        for key in self.key_iterator(out) if present != self.channels else ():
            image = out[key]
            places = [self.channels.index(name) for name in present]
            filled = image[:1].repeat(len(self.channels), *[1] * (image.ndim - 1)) * 0  # keeps the metadata
            filled[places] = image
            out[key] = filled
        return out


class RandDropChannelsd(RandomizableTransform, MapTransform):
    """Zero each channel of (C, *S) with a probability, but never all of them (ModDrop; Neverova et al., 2016).

    Args:
        keys: what to drop channels of.
        prob: of each channel, 0..1.
    """

    def __init__(self, keys: KeysCollection, prob: float, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if not 0 <= prob <= 1:
            raise InputError(f"modality_dropout is {prob}; it must lie within 0 and 1.")
        self.share = prob

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out) if self.share else ():
            image = out[key]
            kept = self.R.uniform(size=len(image)) >= self.share
            kept[self.R.randint(len(image))] |= not kept.any()
            out[key] = image * torch.as_tensor(kept, device=image.device).reshape(-1, *[1] * (image.ndim - 1))
        return out


class ResampleSpacingd(Spacingd):
    """MONAI's Spacingd, shown its own keys alone.

    It takes whatever is called `image_...` for metadata, and fails on the `image_path` that MONAI Label adds.
    """

    def __call__(self, data: Mapping, lazy: bool | None = None) -> dict:
        own = {key: data[key] for key in self.key_iterator(dict(data))}
        return dict(data) | super().__call__(own, lazy)


class LabelToClassesd(MapTransform):
    """Turn a label map (1, *S) with the values of a data set into positions in its classes, uint8.

    Args:
        keys: label maps as stored.
        cohort: what their values mean.

    Raises:
        InputError: there are values that the cohort does not know.
    """

    def __init__(self, keys: KeysCollection, cohort: Cohort, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.cohort = cohort

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            classes = torch.from_numpy(self.cohort.to_classes(out[key].numpy(), f"its {key}"))
            out[key] = convert_to_dst_type(classes, out[key], dtype=torch.uint8)[0]
        return out
