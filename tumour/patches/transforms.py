"""Transforms from files to the input of the network that MONAI does not have."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.networks.layers import gaussian_1d
from monai.transforms import MapTransform, RandAffined, Randomizable, RandomizableTransform, Spacingd, Transform
from monai.utils import convert_to_dst_type
from tumour.cohort import Cohort
from tumour.errors import OptionError
from tumour.scans.readers import background_of


class SelectChannelsd(MapTransform):
    """Keep the given channels of (C, *S), in the given order.

    Args:
        keys: keys of the images.
        indices: channels to keep.

    Raises:
        ValueError: an image has too few channels.
    """

    def __init__(self, keys: KeysCollection, indices: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.indices = list(indices)

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            image = out[key]
            if max(self.indices) >= image.shape[0]:
                raise ValueError(f"indices has {max(self.indices)}, but {key} has only {image.shape[0]} channels.")
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
    """Give a case with missing modalities all channels; the missing ones are filled with zeros.

    Args:
        keys: keys of images (C, *S) whose channels are the item's `modalities`; without that key, all channels.
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
            indices = [self.channels.index(name) for name in present]
            filled = image[:1].repeat(len(self.channels), *[1] * (image.ndim - 1)) * 0  # keeps the metadata
            filled[indices] = image
            out[key] = filled
        return out


class RandDropChannelsd(RandomizableTransform, MapTransform):
    """Zero each channel of (C, *S) with a probability, but never all of them (ModDrop; Neverova et al., 2016).

    Args:
        keys: keys of the images.
        prob: probability of dropping each channel, 0..1.

    Raises:
        InputError: `prob` is out of range.
    """

    def __init__(self, keys: KeysCollection, prob: float, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if not 0 <= prob <= 1:
            raise OptionError(f"modality_dropout is {prob}; it must be between 0 and 1.")
        self.share = prob

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out) if self.share else ():
            image = out[key]
            kept = self.R.uniform(size=len(image)) >= self.share
            kept[self.R.randint(len(image))] |= not kept.any()
            out[key] = image * torch.as_tensor(kept, device=image.device).reshape(-1, *[1] * (image.ndim - 1))
        return out


class RandNoised(RandomizableTransform, MapTransform):
    """Add Gaussian noise to (C, *S), drawn by PyTorch where the image is.

    MONAI's RandGaussianNoised draws it with NumPy: always on the CPU, and more slowly.

    Args:
        keys: keys of the images, which get the same noise.
        prob: probability of noise, 0..1.
        std: largest standard deviation; that of a patch is drawn uniformly between 0 and this.
    """

    def __init__(self, keys: KeysCollection, prob: float, std: float, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.std = std

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return out
        std, seed = self.R.uniform(0, self.std), self.R.randint(2**32, dtype=np.int64)
        for key in self.key_iterator(out):
            image = out[key]
            generator = torch.Generator(image.device).manual_seed(int(seed))
            noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
            out[key] = image + std * noise
        return out


class RandSmoothd(RandomizableTransform, MapTransform):
    """Smooth (C, X, Y, Z) with a Gaussian, for each axis by one matrix product; outside of the image is 0.

    The result is that of MONAI's RandGaussianSmoothd, whose convolutions take four times as long on a CPU.

    Args:
        keys: keys of the images, which are smoothed alike.
        prob: probability of smoothing, 0..1.
        sigma: smallest and largest standard deviation in voxels; that of each axis is drawn uniformly between them.
    """

    def __init__(
        self, keys: KeysCollection, prob: float, sigma: tuple[float, float], allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.sigma = sigma

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return out
        sigmas = self.R.uniform(*self.sigma, size=3)
        for key in self.key_iterator(out):
            image = out[key]
            x, y, z = (
                gaussian_matrix(size, sigma).to(image) for size, sigma in zip(image.shape[1:], sigmas, strict=True)
            )
            smooth = y @ (image @ z)
            out[key] = (x @ smooth.flatten(2)).reshape(image.shape)
        return out


def gaussian_matrix(size: int, sigma: float) -> torch.Tensor:
    """The matrix (size, size) that smooths a line of voxels with MONAI's Gaussian, which ends after four sigma."""
    kernel = gaussian_1d(torch.tensor(sigma), truncated=4.0)
    weights = torch.cat([kernel[len(kernel) // 2 :], torch.zeros(1)])  # by distance; 0 further away
    voxels = torch.arange(size)
    return weights[(voxels[:, None] - voxels).abs().clamp(max=len(weights) - 1)]


class RandAffineFloat32d(RandAffined):
    """MONAI's RandAffined, which interpolates in float32 here: in float64 it takes 1.6 times as long on a CPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rand_affine.resampler.dtype = np.float32


class RandSeedd(Randomizable, Transform):
    """Add `seed` to an item, a random number for the random transforms after the data loader (`AugmentBatch`)."""

    def __call__(self, data: Mapping) -> dict:
        return {**data, "seed": int(self.R.randint(2**32, dtype=np.int64))}


class ResampleSpacingd(Spacingd):
    """MONAI's Spacingd with only the entries of its keys as input.

    Spacingd treats every entry called `image_...` as metadata, and fails on `image_path`, which MONAI Label adds.
    """

    def __call__(self, data: Mapping, lazy: bool | None = None) -> dict:
        selected = {key: data[key] for key in self.key_iterator(dict(data))}
        return dict(data) | super().__call__(selected, lazy)


class LabelToClassesd(MapTransform):
    """Turn a label map (1, *S) with the values of a data set into positions in its classes, uint8.

    Args:
        keys: keys of label maps with the values of the files.
        cohort: the label values and the classes.

    Raises:
        InputError: a label map has a value that the cohort does not define.
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
