import numpy as np
import pytest
import torch
import yaml
from custom_components.losses import BlobLoss, ComponentDiceBCELoss, DiceBCELoss, FocalTverskyLoss, WeightedSum
from monai.bundle import ConfigParser
from monai.losses import BoundaryLoss, DiceLoss, TverskyLoss

from tests.conftest import ROOT


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


def test_a_patch_without_a_region_costs_nothing_if_the_batch_has_the_region():
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


# Lesion by lesion -----------------------------------------------------------------------------------------------------
def two_lesions(spatial_dims):
    """A large lesion and a small one, in a target of one region."""
    y = torch.zeros(1, 1, *(20, 8, 7)[:spatial_dims])
    y[:, :, 1:9, 1:7] = 1
    y[:, :, 16:18, 3:5] = 1
    return y


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("kind", [ComponentDiceBCELoss, BlobLoss])
def test_a_missed_small_lesion_costs_as_much_as_a_missed_large_one(kind, spatial_dims):
    y = two_lesions(spatial_dims)
    lost = []
    for missed in (slice(0, 10), slice(12, 20)):
        x = logits_of(y)
        x[:, :, missed] = -20
        lost.append(float(kind(bce_weight=0.0)(x, y) - DiceBCELoss(bce_weight=0.0)(x, y)))
    assert lost == pytest.approx([0.5, 0.5], abs=0.01)  # one of two lesions has a Dice of 0
    assert kind()(logits_of(y), y) < 1e-3


@pytest.mark.parametrize(("kind", "counted"), [(ComponentDiceBCELoss, (0, 12)), (BlobLoss, (12, 12))])
def test_a_false_positive_next_to_a_lesion_counts_for_that_lesion(kind, counted):
    y = two_lesions(2)  # 48 and 4 voxels
    x = logits_of(y)
    x[:, :, 18:20, 1:7] = 20  # 12 voxels, nearer to the small one
    expected = np.mean([n / (2 * size + n) for size, n in zip((48, 4), counted, strict=True)])
    loss = kind(bce_weight=0.0)(x, y) - DiceBCELoss(bce_weight=0.0)(x, y)
    assert float(loss) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", [ComponentDiceBCELoss, BlobLoss])
def test_without_lesions_only_the_global_term_counts(kind):
    y = torch.zeros(2, 3, 6, 5, 4)
    x = torch.randn(2, 3, 6, 5, 4, requires_grad=True)
    loss = kind()(x, y)
    loss.backward()
    assert torch.equal(loss, DiceBCELoss()(x, y)) and x.grad.isfinite().all()


def test_focal_tversky_turns_to_the_worst_channel_and_is_tversky_at_gamma_one():
    y, x = target(), torch.randn(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(2))
    options = {"sigmoid": True, "alpha": 0.3, "beta": 0.7}
    each = TverskyLoss(batch=True, reduction="none", **options)(x, y)
    assert FocalTverskyLoss(gamma=1.0, **options)(x, y) == pytest.approx(float(each.mean()))
    assert FocalTverskyLoss(gamma=2.0, **options)(x, y) == pytest.approx(float(each.sqrt().mean()))
    perfect = logits_of(y).requires_grad_()
    FocalTverskyLoss(**options)(perfect, y).backward()
    assert perfect.grad.isfinite().all()


def test_a_weighted_sum_is_one():
    y, x = target(), torch.randn(2, 3, 6, 5, 4)
    dice, both = DiceLoss(sigmoid=True), DiceBCELoss()
    assert torch.isclose(WeightedSum([dice, both], [2.0, 0.5])(x, y), 2 * dice(x, y) + 0.5 * both(x, y))


# By name --------------------------------------------------------------------------------------------------------------
LAYERS = [str(ROOT / f"bundles/common/{name}.yaml") for name in ("cohorts", "brats", "network", "train", "losses")]
NAMES = yaml.safe_load((ROOT / "bundles/common/losses.yaml").read_text())["losses"]
ONLY = {"dice_bce": "regions", "dice_ce": "classes", "cc_dice_bce": "regions", "blob": "regions"}
NAMED = [(name, kind) for name in NAMES for kind in ("regions", "classes") if ONLY.get(name, kind) == kind]


def named(name, kind):
    parser = ConfigParser()
    parser.read_config(LAYERS)
    weights = [1.0, 2.0, 3.0, 4.0][: 3 if kind == "regions" else 4]
    parser.update({"head": f"@heads::{kind}", "channel_weights": weights, "train::dataset::data": []})
    return parser.get_parsed_content(f"losses::{name}")


@pytest.mark.parametrize(("name", "kind"), NAMED)
def test_a_named_loss_falls_with_the_error_and_is_finite_on_empty_targets(name, kind):
    loss, channels = named(name, kind), 3 if kind == "regions" else 4
    label = torch.randint(0, 4, (2, 8, 7, 6), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    y = one_hot if kind == "classes" else torch.stack([one_hot[:, 1:].sum(1), one_hot[:, 1], one_hot[:, 3]], 1)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    values = [float(loss(logits_of(y, sure) + noise, y)) for sure in (-3.0, 0.0, 3.0)]
    assert values[0] > values[1] > values[2]
    empty = torch.zeros_like(y)
    if kind == "classes":
        empty[:, 0] = 1
    x = torch.zeros(2, channels, 8, 7, 6, requires_grad=True)
    loss(x, empty).backward()
    assert x.grad.isfinite().all()


def slab():
    """A target (1, 3, 8, 7, 6) of three regions, each of the same three slices, and its logits."""
    y = torch.zeros(1, 3, 8, 7, 6)
    y[:, :, 2:5] = 1
    return y, logits_of(y)


@pytest.mark.parametrize(("name", "power"), [("tversky", 1), ("focal_tversky", 3 / 4)])
def test_the_named_tversky_losses_weigh_what_is_missed_by_0_7_and_what_is_invented_by_0_3(name, power):
    loss = named(name, "regions")
    for slices, value, expected in ((2, -20.0, 1 - 2 / (2 + 0.7)), (5, 20.0, 1 - 3 / (3 + 0.3))):
        y, x = slab()
        x[:, :, slices] = value
        assert float(loss(x, y)) == pytest.approx(expected**power, abs=1e-4)


@pytest.mark.parametrize("name", ["weighted_dice", "focal", "weighted_dice_focal"])
def test_an_error_in_a_channel_of_larger_weight_costs_more(name):
    loss, costs = named(name, "regions"), []  # with the weights 1, 2 and 3
    for channel in range(3):
        y, x = slab()
        x[:, channel, 2] = -3
        costs.append(float(loss(x, y)))
    assert costs[0] < costs[1] < costs[2]


def test_the_boundary_loss_is_added_to_dice_by_a_hundredth():
    (y, _), x = slab(), torch.randn(1, 3, 8, 7, 6, generator=torch.Generator().manual_seed(0))
    expected = DiceLoss(sigmoid=True, batch=True)(x, y) + 0.01 * BoundaryLoss(sigmoid=True)(x, y)
    assert torch.isclose(named("dice_boundary", "regions")(x, y), expected)


def test_the_loss_follows_the_head_of_the_network():
    parser = ConfigParser()
    parser.read_config(LAYERS)
    assert type(parser.get_parsed_content("loss")).__name__ == "DiceBCELoss"
    parser.update({"head": "@heads::classes"})
    parser.ref_resolver.reset()
    assert type(parser.get_parsed_content("loss")).__name__ == "DiceCELoss"
