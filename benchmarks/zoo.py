"""The BraTS bundle of the model zoo: its network, training and inference, with its published settings.

Myronenko, 2018; brats_mri_segmentation 0.5.2. Two things are changed: the patch is ours instead of 224 x 224 x 144,
and labels are numbers, because the Dice loss of the current MONAI refuses booleans.
"""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import Dataset
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceLoss
from monai.networks.nets import SegResNet
from monai.transforms import (
    CastToTyped,
    Compose,
    ConvertToMultiChannelBasedOnBratsClassesd,
    LoadImaged,
    NormalizeIntensityd,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
)
from tumour.cases.case import Case

WINDOW = (240, 240, 160)


def network() -> SegResNet:
    """SegResNet from four modalities to TC, WT, ET."""
    return SegResNet(
        init_filters=16, in_channels=4, out_channels=3, dropout_prob=0.2, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1)
    )


def optimiser(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Adam; a training lowers its learning rate along a cosine."""
    return torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-5)


def loss() -> DiceLoss:
    """Dice of the three regions."""
    return DiceLoss(smooth_nr=0, smooth_dr=1e-5, squared_pred=True, to_onehot_y=False, sigmoid=True)


def reading(label: bool) -> list:
    """Transforms that read and normalise a scan."""
    keys = ["image", "label"] if label else ["image"]
    steps: list = [LoadImaged(keys, ensure_channel_first=True)]
    if label:
        steps += [ConvertToMultiChannelBasedOnBratsClassesd("label"), CastToTyped("label", torch.float32)]
    return [*steps, NormalizeIntensityd("image", nonzero=True, channel_wise=True)]


def training_set(cases: Sequence[Case], patch: int) -> Dataset:
    """Random patches; a case is read again for every patch, as in the bundle."""
    both = ["image", "label"]
    augment: list = [RandSpatialCropd(both, (patch,) * 3, random_size=False)]
    augment += [RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)]
    augment += [
        RandScaleIntensityd("image", factors=0.1, prob=1.0),
        RandShiftIntensityd("image", offsets=0.1, prob=1.0),
    ]
    first, *rest = reading(label=True)
    items = [case.item() for case in cases]
    return Dataset(items, Compose([first, *rest[:2], augment[0], *augment[1:4], rest[2], *augment[4:]]))


def segment(network: torch.nn.Module, case: Case, window: tuple[int, int, int], path: Path) -> None:
    """Segment a case, from file to file, with half-overlapping windows; 1 necrotic, 2 oedema, 3 enhancing."""
    inferer = SlidingWindowInferer(roi_size=window, sw_batch_size=1, overlap=0.5)
    image = Compose(reading(label=False))({"image": list(case.images)})["image"]
    with torch.no_grad():
        tumour_core, whole, enhancing = torch.as_tensor(inferer(image[None].as_tensor(), network))[0].sigmoid() > 0.5
    classes = np.where(enhancing, 3, np.where(tumour_core, 1, np.where(whole, 2, 0))).astype(np.uint8)
    nib.save(nib.Nifti1Image(classes, image.affine.numpy()), path)  # type: ignore[attr-defined]
