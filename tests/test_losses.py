import pytest
import torch
from monai.losses import DiceLoss

from custom_components.losses import DiceBCELoss


def target(spatial_dims=3, regions=3):
    return (torch.rand(2, regions, *(6, 5, 4)[:spatial_dims], generator=torch.Generator().manual_seed(0)) > 0.7).float()


def logits_of(regions, sure=20.0):
    return (2 * regions - 1) * sure


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_perfect_prediction_costs_nothing(spatial_dims):
    y = target(spatial_dims)
    assert DiceBCELoss()(logits_of(y), y) < 1e-4


def test_the_loss_falls_as_the_overlap_grows():
    y = target()
    losses = []
    for wrong in (0.9, 0.5, 0.1):
        flipped = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < wrong
        losses.append(float(DiceBCELoss()(logits_of(torch.where(flipped, 1 - y, y), 3.0), y)))
    assert losses[0] > losses[1] > losses[2]


def test_dice_is_pooled_over_the_batch_and_bce_is_per_region():
    y, x = target(), torch.randn(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(2))
    p, over = x.sigmoid(), (0, 2, 3, 4)
    dice = 1 - (2 * (p * y).sum(over) + 1e-5) / (p.sum(over) + y.sum(over) + 1e-5)
    bce = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert torch.isclose(DiceBCELoss()(x, y), dice.mean() + bce, atol=1e-5)
    assert torch.isclose(DiceBCELoss(0.5, 2.0)(x, y), 0.5 * dice.mean() + 2 * bce, atol=1e-5)


def test_without_bce_it_is_monais_dice_loss():
    y, x = target(), torch.randn(2, 3, 6, 5, 4)
    assert torch.isclose(DiceBCELoss(bce_weight=0.0)(x, y), DiceLoss(sigmoid=True, batch=True)(x, y))


def test_a_patch_without_a_region_is_no_miss_while_the_batch_has_it():
    y = target()
    y[0] = 0
    one_patch_right = logits_of(y)
    assert DiceBCELoss(bce_weight=0.0)(one_patch_right, y) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_loss_is_finite_on_empty_targets_in_every_precision(dtype):
    x = torch.full((2, 3, 8, 8, 8), -30.0, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = DiceBCELoss()(x, torch.zeros(2, 3, 8, 8, 8))
    loss.backward()
    assert loss.dtype is torch.float32 and loss.isfinite() and x.grad.isfinite().all()
