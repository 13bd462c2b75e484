"""The augmentation of a batch on the device of the training."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.transforms import Compose


class AugmentBatch(PrepareBatch):
    """Transform each patch of a batch on the device of the training, as the data loader's workers would on the CPU.

    The random numbers of a patch depend only on its `seed`, which `tumour.patches.transforms.RandSeedd` has drawn: a
    batch becomes the same whenever it is repeated, as in a resumed training.

    Args:
        transforms: for items of `image` (C, *S) and `label` (1, *S).
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = Compose(list(transforms))

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, C, *S) and targets (B, R, *S) of a batch with the images, labels (B, 1, *S) and seeds (B)."""
        moved = (batchdata[key].to(device, non_blocking=non_blocking) for key in ("image", "label"))
        images, labels = (each.to(**kwargs) for each in moved)  # in one call PyTorch would convert them on the CPU
        patches = []
        for image, label, seed in zip(images, labels, batchdata["seed"].tolist(), strict=True):
            self.transforms.set_random_state(seed)
            patches.append(self.transforms({"image": image, "label": label}))
        return torch.stack([patch["image"] for patch in patches]), torch.stack([patch["label"] for patch in patches])
