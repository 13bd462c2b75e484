"""Convert between classes, the channels of a network, regions and label maps."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from tumour.cohort import Cohort
from tumour.errors import OptionError


class ToRegionsd(MapTransform):
    """Turn a label map of classes (1, *S) into overlapping regions (R, *S) of zeros and ones, float32.

    Args:
        keys: keys of label maps whose values are positions in `classes`.
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

    A region with exactly the classes of one channel is that channel. Any other region is the sum of the channels whose
    classes are part of it, because the probabilities of mutually exclusive classes add up.

    Args:
        keys: keys of probabilities, or of a target of zeros and ones.
        channels: class names of each channel, by the channel's name; a channel without classes belongs to no region.
        regions: class names of each region, by the region's name.
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

    Regions are painted from the largest to the smallest, each with its only class that no smaller region inside it
    has: whole tumour as oedema, then tumour core as necrotic, then enhancing tumour as enhancing, as in nnU-Net.

    Args:
        keys: keys of the regions.
        cohort: the regions, in the order of the channels, and the classes.

    Raises:
        OptionError: a region does not have exactly one such class.
    """

    def __init__(self, keys: KeysCollection, cohort: Cohort, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        sets = [set(names) for names in cohort.regions.values()]
        self.cohort = cohort
        self.paint: list[tuple[int, int]] = []
        for index in sorted(range(len(sets)), key=lambda i: -len(sets[i])):
            outermost = sets[index].difference(*[other for other in sets if other < sets[index]])
            if len(outermost) != 1:
                region, own = list(cohort.regions)[index], ", ".join(sorted(outermost)) or "no class"
                problem = f"has {own} that no smaller region inside it has, and needs exactly one such class"
                raise OptionError(f"region {region} of cohort {cohort.name} {problem}; correct regions or classes.")
            self.paint.append((index, cohort.classes.index(outermost.pop())))

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
        """The label map (1, *S) with the values to return."""
        return classes


class ToLabelMapd(RegionsToClassesd):
    """Turn regions (R, *S) of zeros and ones into one label map (1, *S) with the values of the cohort's label files."""

    def stored(self, classes: torch.Tensor) -> torch.Tensor:
        label = classes.clone()
        for position, value in enumerate(self.cohort.label_values):
            label[classes == position] = value
        return label
