"""From regions to label maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from tumour.cohort import Cohort


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
