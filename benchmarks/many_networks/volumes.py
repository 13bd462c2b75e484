"""All patients of a data set on one device, read by the configs of a bundle."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from monai.bundle import ConfigParser
from tumour.cases.case import Case
from tumour.patches.datasets import cached

POINTS = 2000  # voxels per case and class on which a patch may be centred
STEPS = ("read_label", "read", "centres", "compact::image", "compact::label")  # as before the cache of a training


@dataclass(frozen=True)
class Volumes:
    """Cases cropped to the brain, padded with zeros to the size of the largest.

    Args:
        cases: the N cases.
        image: (N, C, X, Y, Z), float16.
        label: (N, X, Y, Z), uint8, positions in the classes.
        sizes: (N, 3), the size of each case in voxels.
        centres: (N, classes, POINTS, 3), voxels of each class, drawn with replacement.
        present: (N, classes), 1 if the case contains the class, else 0.
    """

    cases: Sequence[Case]
    image: torch.Tensor
    label: torch.Tensor
    sizes: torch.Tensor
    centres: torch.Tensor
    present: torch.Tensor

    def case(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (C, *S), float32, and label (*S) of a case without the padding."""
        x, y, z = self.sizes[index].int().tolist()
        return self.image[index, :, :x, :y, :z].float(), self.label[index, :x, :y, :z]

    def robust(self) -> "Volumes":
        """The same with each channel normalised by the median and the interquartile range of the brain."""
        image = torch.zeros_like(self.image)
        steps = torch.tensor([0.25, 0.5, 0.75], device=image.device)
        for index in range(len(self.cases)):
            for channel, new in zip(*(each[index] for each in (self.image, image)), strict=True):
                brain = channel != 0
                low, middle, high = torch.quantile(channel[brain].float(), steps)
                # a normal distribution has a range of 1.349 sd
                scaled = (channel.float() - middle) / (high - low).clamp(min=1e-3) * 1.349
                new.copy_(torch.where(brain, scaled, 0.0))
        return replace(self, image=image)


def read(parser: ConfigParser, cases: Sequence[Case], device: torch.device) -> Volumes:
    """Read the cases with the transforms of a bundle's config, eight at a time."""
    items = cached(cases, [step for name in STEPS for step in parser.get_parsed_content(name)], [], "memory", "")
    sizes = [items[n]["label"].shape[1:] for n in range(len(cases))]
    extent = [max(side) for side in zip(*sizes, strict=True)]
    channels, classes = len(items[0]["image"]), len(items[0]["label_indices"])
    image = torch.zeros(len(cases), channels, *extent, dtype=torch.float16, device=device)
    label = torch.zeros(len(cases), *extent, dtype=torch.uint8, device=device)
    centres, present = torch.zeros(len(cases), classes, POINTS, 3), torch.zeros(len(cases), classes)
    for n, (x, y, z) in enumerate(sizes):
        item = items[n]
        image[n, :, :x, :y, :z], label[n, :x, :y, :z] = item["image"].to(device), item["label"][0].to(device)
        for c, indices in enumerate(map(torch.as_tensor, item["label_indices"])):
            if len(indices):
                drawn = indices[torch.randint(len(indices), (POINTS,))]
                centres[n, c] = torch.stack(torch.unravel_index(drawn, (x, y, z)), dim=1)
                present[n, c] = 1
    return Volumes(cases, image, label, torch.tensor(sizes).float().to(device), centres.to(device), present.to(device))
