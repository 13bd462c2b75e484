import numpy as np
import pytest
import torch
from monai.transforms import GaussianSmooth, RandAffined
from tumour.maps.regions import ChannelsToRegionsd, ToLabelMapd, ToRegionsd
from tumour.patches.transforms import (
    PlaceChannelsd,
    RandAffineFloat32d,
    RandDropChannelsd,
    RandNoised,
    RandSmoothd,
    SelectChannelsd,
    ZeroBackgroundd,
)
from tumour.runs.inferers import MirrorInferer, MixedPrecision

from tests.cohorts import CLASSES, REGIONS, glioma


def label_map():
    return torch.randint(0, 4, (1, 6, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def regions_of(label):
    return ToRegionsd("label", REGIONS, CLASSES)({"label": label})["label"]


def test_regions_are_the_unions_of_their_classes():
    label = label_map()
    expected = torch.cat([(label == 1) | (label == 3), label > 0, label == 3]).float()
    assert torch.equal(regions_of(label), expected)


@pytest.mark.parametrize("values", [[0, 1, 2, 4], [0, 1, 2, 3], [0, 2, 1, 3]])
def test_regions_become_the_label_values_of_each_data_set(values):
    label = label_map()
    back = ToLabelMapd("x", glioma(*values))({"x": regions_of(label)})["x"]
    assert back.dtype is torch.uint8
    assert np.array_equal(back.numpy(), np.asarray(values)[label.numpy()])


def test_enhancing_tumour_is_painted_over_core_over_whole_tumour():
    tc, wt, et = 0, 1, 2
    regions = torch.zeros(3, 1, 1, 4)
    regions[wt, 0, 0, :3] = regions[tc, 0, 0, 1:3] = regions[et, 0, 0, 2] = 1
    label = ToLabelMapd("x", glioma())({"x": regions})["x"]
    assert label.flatten().tolist() == [2, 1, 4, 0]


def test_a_region_without_a_class_of_its_own_is_refused():
    with pytest.raises(ValueError, match="region TC of cohort glioma has .* needs exactly one such class"):
        ToLabelMapd("x", glioma(regions={"TC": ["necrotic", "enhancing"], "WT": CLASSES[1:]}))


def test_channels_are_selected_in_the_order_asked_for():
    image = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 2, 2, 2)
    out = SelectChannelsd("image", [1, 2, 3, 0])({"image": image})["image"]
    assert out[:, 0, 0, 0].tolist() == [1, 2, 3, 0]
    with pytest.raises(ValueError, match="indices has 4, but .* has only 4 channels"):
        SelectChannelsd("image", [0, 4])({"image": image})


def test_a_background_of_another_value_becomes_zero_in_each_channel_of_its_own():
    scans = torch.zeros(3, 8, 7, 6)
    scans[:, 2:6, 2:5, 2:4] = torch.rand(3, 4, 3, 2, generator=torch.Generator().manual_seed(0)) + 1
    shift = torch.tensor([-0.5, 0, 3]).reshape(3, 1, 1, 1)  # as of a z-scored scan, none, and above 0
    out = ZeroBackgroundd("image")({"image": scans + shift})["image"]
    assert torch.allclose(out, scans, atol=1e-6) and not out[:, 0].any()


def test_a_missing_modality_becomes_a_channel_of_zeros_in_its_place():
    image = torch.arange(1.0, 3).reshape(2, 1, 1, 1).expand(2, 4, 3, 2)
    place = PlaceChannelsd("image", ["T1", "T1ce", "T2", "FLAIR"])
    out = place({"image": image, "modalities": ["T1ce", "FLAIR"]})["image"]
    assert out[:, 0, 0, 0].tolist() == [0, 1, 0, 2] and out.shape == (4, 4, 3, 2)
    assert place({"image": image})["image"] is image


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_each_channel_is_dropped_as_often_as_asked_for_but_never_all(prob):
    drop = RandDropChannelsd("image", prob)
    drop.set_random_state(0)
    image = torch.rand(4, 3, 2, 2) + 1
    kept = torch.stack([(drop({"image": image})["image"] == image).flatten(1).all(1) for _ in range(2000)])
    expected = 1 - (prob - prob**4 / 4)  # if all four would be dropped, one of them stays
    assert kept.any(dim=1).all() and kept.float().mean() == pytest.approx(expected, abs=0.02)
    assert kept.float().mean(dim=0).tolist() == pytest.approx([expected] * 4, abs=0.04)
    assert (image > 1).all()  # the cached image is unchanged


def test_a_probability_out_of_its_range_is_refused():
    with pytest.raises(ValueError, match="modality_dropout is 1.5"):
        RandDropChannelsd("image", 1.5)


def test_noise_is_normal_and_white_and_its_strength_uniform():
    noise, image = RandNoised("image", prob=0.25, std=0.3), torch.full((2, 9, 8, 7), 5.0)
    noise.set_random_state(0)
    added = torch.stack([noise({"image": image})["image"] - image for _ in range(4000)])
    noisy = added[added.flatten(1).any(dim=1)]
    assert len(noisy) / 4000 == pytest.approx(0.25, abs=0.02)
    spread = noisy.flatten(1).std(dim=1, keepdim=True)
    for share in (0.1, 0.5, 0.9):
        assert (spread < 0.3 * share).float().mean().item() == pytest.approx(share, abs=0.04)
    standard = noisy.flatten(1) / spread
    assert standard.mean().item() == pytest.approx(0, abs=0.01)
    assert (standard.abs() < 1).float().mean().item() == pytest.approx(0.683, abs=0.005)
    assert standard.mean(dim=0).abs().max() < 0.15  # each voxel and each patch has noise of its own
    assert (image == 5).all()  # the cached image is unchanged


def test_noise_depends_on_the_seed_of_the_transform_alone():
    noise, image = RandNoised("image", prob=1.0, std=0.3), torch.zeros(2, 5, 4, 3)
    made = []
    for seed in (3, 3, 4):
        noise.set_random_state(seed)
        torch.manual_seed(len(made))
        made.append(noise({"image": image})["image"])
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_smoothing_is_that_of_monai_up_to_the_borders():
    smooth, image = RandSmoothd("image", prob=1.0, sigma=(0.5, 1.0)), torch.rand(2, 11, 3, 8) + 1
    smooth.set_random_state(0)
    made = smooth({"image": image})["image"]
    state = np.random.RandomState(0)
    state.rand()  # whether the image is smoothed
    assert torch.allclose(made, GaussianSmooth(state.uniform(0.5, 1.0, size=3))(image), atol=1e-5)
    assert not torch.allclose(made, image, atol=0.1) and image.min() >= 1  # the cached image is unchanged


def test_each_axis_is_smoothed_as_often_and_as_strongly_as_asked_for():
    smooth, image = RandSmoothd("image", prob=0.25, sigma=(0.5, 1.0)), torch.zeros(1, 9, 9, 9)
    image[0, 4, 4, 4] = 1
    smooth.set_random_state(0)
    made = torch.stack([smooth({"image": image})["image"][0] for _ in range(2000)])
    blurred = made[made[:, 4, 4, 4] < 1]
    assert len(blurred) / 2000 == pytest.approx(0.25, abs=0.03)
    squares = (torch.arange(9.0) - 4) ** 2
    lines = [blurred.sum(axes) for axes in ((2, 3), (1, 3), (1, 2))]
    spread = torch.stack([(line @ squares).sqrt() for line in lines])  # the standard deviation along each axis
    assert spread.min() > 0.5 and spread.max() < 1.1
    assert spread.mean(1).tolist() == pytest.approx([0.8, 0.8, 0.8], abs=0.03)  # of a Gaussian in voxels, a bit wider
    assert torch.corrcoef(spread).triu(1).abs().max() < 0.2


def test_rotation_and_scaling_are_those_of_monai_in_float32(monkeypatch):
    item = {"image": torch.rand(2, 12, 10, 9) + 1, "label": (torch.rand(1, 12, 10, 9) > 0.5).byte()}
    how = {"prob": 1.0, "rotate_range": [0.5] * 3, "scale_range": [[-0.3, 0.4]] * 3, "padding_mode": "zeros"}
    steps = [
        kind(["image", "label"], mode=["bilinear", "nearest"], **how) for kind in (RandAffineFloat32d, RandAffined)
    ]
    precisions = []
    sample = torch.nn.functional.grid_sample

    def record(image, grid, **options):
        precisions.append(image.dtype)
        return sample(image, grid, **options)

    monkeypatch.setattr(torch.nn.functional, "grid_sample", record)
    ours, monai = (step.set_random_state(0)(item) for step in steps)
    assert precisions == [torch.float32] * 2 + [torch.float64] * 2
    assert torch.allclose(ours["image"], monai["image"], atol=1e-4) and not torch.equal(ours["image"], item["image"])
    assert (ours["label"] != monai["label"]).float().mean() < 0.01  # a voxel between two may round to either


def test_a_cavity_is_a_region_separate_from_the_tumour():
    classes, regions = [*CLASSES, "cavity"], {**REGIONS, "RC": ["cavity"]}
    label = torch.randint(0, 5, (1, 6, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    made = ToRegionsd("label", regions, classes)({"label": label})["label"]
    assert torch.equal(made[3:] > 0, label == 4) and not (made[:3] * made[3:]).any()
    assert torch.equal(
        ToLabelMapd("x", glioma(0, 1, 2, 3, 4, classes=classes, regions=regions))({"x": made})["x"], label
    )


def test_mirroring_averages_the_logits_of_all_eight_flips():
    def inferer(x, network):
        return network(x)

    ramp = torch.arange(4.0 * 3 * 2).reshape(1, 1, 4, 3, 2)
    x = torch.rand(1, 1, 4, 3, 2)
    flips = [(), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)]
    expected = sum((x.flip(f) * ramp).flip(f) for f in flips) / 8
    assert torch.allclose(MirrorInferer(inferer, [0, 1, 2])(x, lambda y: y * ramp), expected)
    assert torch.equal(MirrorInferer(inferer, [])(x, lambda y: y * ramp), x * ramp)


def test_mixed_precision_runs_the_network_in_it_and_returns_float32():
    seen = []
    layer = torch.nn.Linear(4, 4)

    def network(x):
        y = layer(x)
        seen.append(y.dtype)
        return y

    def inferer(x, network):
        return network(x)

    x = torch.rand(2, 4)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        y = MixedPrecision(inferer, torch.device("cpu"), precision)(x.half(), network)
        assert seen[-1] is dtype and y.dtype is torch.float32
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        MixedPrecision(inferer, torch.device("cpu"), "float16")
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, float16"):
        MixedPrecision(inferer, torch.device("cpu"), "half")


def test_regions_with_a_channel_are_that_channel_and_others_the_sum_of_their_classes():
    classes = {name: [name] for name in CLASSES}
    probabilities = torch.rand(4, 3, 2, 2).softmax(0)
    regions = ChannelsToRegionsd("x", classes, REGIONS)({"x": probabilities})["x"]
    expected = [probabilities[1] + probabilities[3], probabilities[1:].sum(0), probabilities[3]]
    assert torch.allclose(regions, torch.stack(expected))
    assert torch.equal(ChannelsToRegionsd("x", REGIONS, REGIONS)({"x": probabilities[:3]})["x"], probabilities[:3])
    swapped = dict(reversed(REGIONS.items()))
    assert torch.equal(
        ChannelsToRegionsd("x", REGIONS, swapped)({"x": probabilities[:3]})["x"], probabilities[:3].flip(0)
    )


def test_a_channel_without_classes_is_empty_and_belongs_to_no_region():
    channels = {"background": ["background"], "unused": [], **{name: [name] for name in CLASSES[1:]}}
    target = ToRegionsd("x", channels, CLASSES)({"x": label_map()})["x"]
    assert target.shape == (5, 6, 5, 4) and target.dtype is torch.float32 and not target[1].any()
    assert torch.equal(target.argmax(0), torch.tensor([0, 2, 3, 4])[label_map()[0].long()])
    probabilities = torch.rand(5, 3, 2, 2).softmax(0)
    regions = ChannelsToRegionsd("x", channels, REGIONS)({"x": probabilities})["x"]
    expected = [probabilities[2] + probabilities[4], probabilities[2:].sum(0), probabilities[4]]
    assert torch.allclose(regions, torch.stack(expected))


@pytest.mark.parametrize("channels", [REGIONS, {name: [name] for name in CLASSES}])
def test_a_target_of_regions_or_of_classes_becomes_the_same_regions(channels):
    target = ToRegionsd("x", channels, CLASSES)({"x": label_map()})["x"]
    assert torch.equal(ChannelsToRegionsd("x", channels, REGIONS)({"x": target})["x"], regions_of(label_map()))
