"""Between classes, the channels of a network and regions; from regions to label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from tumour.cohort import Cohort


class ToRegionsd(MapTransform):
    """Turn a label map of classes (1, *S) into overlapping regions (R, *S) of zeros and ones, float32.

    Args:
        keys: label maps whose values are positions in `classes`.
        regions: class names of each region, by the region's name; a region without classes is empty.
        classes: class names, background first.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Mapping[str, Sequence[str]],
        classes: Sequence[str],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.members = [[classes.index(name) for name in names] for names in regions.values()]

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            label = out[key]
            none = torch.zeros_like(label, dtype=torch.bool)
            regions = [reduce(or_, (label == value for value in members), none) for members in self.members]
            out[key] = convert_to_tensor(torch.cat(regions), dtype=torch.float32, track_meta=False)
        return out


class ChannelsToRegionsd(MapTransform):
    """Turn the channels of a network (C, *S) into regions (R, *S).

    A region that has a channel of its own is that channel; another is the sum of the channels of its classes, as the
    probability of one of several classes that exclude each other is the sum of theirs.

    Args:
        keys: probabilities, or a target of zeros and ones.
        channels: class names of each channel, by its name; a channel without classes belongs to no region.
        regions: class names of each region, by its name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: Mapping[str, Sequence[str]],
        regions: Mapping[str, Sequence[str]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        sets = [set(names) for names in channels.values()]
        self.parts = [
            [i for i, s in enumerate(sets) if s == set(names)]
            or [i for i, s in enumerate(sets) if s and s < set(names)]
            for names in regions.values()
        ]

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            if self.parts != [[index] for index in range(out[key].shape[0])]:
                out[key] = torch.stack([out[key][part].sum(dim=0) for part in self.parts])
        return out


class RegionsToClassesd(MapTransform):
    """Turn regions (R, *S) of zeros and ones into one label map (1, *S) of positions in the classes, uint8.

    Regions are painted from the largest to the smallest, each with the one class that no region inside it holds: whole
    tumour as oedema, over it tumour core as necrotic, over it enhancing tumour as enhancing (as nnU-Net does).

    Args:
        keys: regions to turn into a label map.
        cohort: the regions, in the order of the channels, and the classes.
    """

    def __init__(self, keys: KeysCollection, cohort: Cohort, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        sets = [set(names) for names in cohort.regions.values()]
        self.cohort = cohort
        self.paint: list[tuple[int, int]] = []
        for index in sorted(range(len(sets)), key=lambda i: -len(sets[i])):
            own = sets[index].difference(*[other for other in sets if other < sets[index]])
            if len(own) != 1:
                region = list(cohort.regions)[index]
                raise ValueError(f"region {region} must hold one class of its own, it holds {sorted(own)}.")
            self.paint.append((index, cohort.classes.index(own.pop())))

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out):
            regions = out[key]
            label = torch.zeros_like(regions[:1], dtype=torch.uint8)
            for index, position in self.paint:
                label[0][regions[index] > 0] = position
            out[key] = self.stored(label)
        return out

    def stored(self, classes: torch.Tensor) -> torch.Tensor:
        return classes


class ToLabelMapd(RegionsToClassesd):
    """The same, with the values that the cohort's label files hold."""

    def stored(self, classes: torch.Tensor) -> torch.Tensor:
        label = classes.clone()
        for position, value in enumerate(self.cohort.label_values):
            label[classes == position] = value
        return label
