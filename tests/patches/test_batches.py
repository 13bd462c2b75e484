"""The augmentation on the device of the training; the CPU stands in for a GPU."""

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose
from tumour.patches import datasets
from tumour.patches.batches import AugmentBatch
from tumour.patches.transforms import RandDropChannelsd, RandSeedd

from tests.conftest import BUNDLES, succeed
from tools.show import merged

LAYER = "bundles/common/augment_on_device.yaml"
FLOAT = {"dtype": torch.float32}


def parser_with(*layers):
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml", *layers)
    for name, value in {"device": "cpu", "cohort": "brats2021", "patch_size": [16, 16, 16]}.items():
        parser[name] = value
    return parser


def kinds(steps):
    return [(type(step).__name__, getattr(step, "prob", None), getattr(step, "keys", None)) for step in steps]


@pytest.fixture
def augment(parsed_once):
    return parser_with(LAYER).get_parsed_content("train::trainer::prepare_batch")


def batch_of(seeds, size=(12, 10, 9)):
    """The same patch for each seed."""
    numbers = torch.Generator().manual_seed(0)
    image = torch.randn(4, *size, generator=numbers).half().repeat(len(seeds), 1, 1, 1, 1)
    label = torch.randint(0, 4, (1, *size), generator=numbers, dtype=torch.uint8).repeat(len(seeds), 1, 1, 1, 1)
    return {"image": image, "label": label, "seed": torch.tensor(seeds)}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_bundle_trains(bundle, patients, tmp_path):
    succeed("training", bundle, tmp_path, "brats2021", patients("brats2021"), **{"+config_file": [LAYER]})
    log = pd.read_csv(tmp_path / "results" / "training.csv")
    assert len(log) == 2 and np.isfinite(log[["loss", "train_dice", "validate_dice"]]).all(axis=None)


def test_the_steps_and_their_probabilities_are_those_of_the_workers_which_only_cut(parsed_once):
    usual, layered = parser_with(), parser_with(LAYER)
    steps = {name: usual.get_parsed_content(name) for name in ("crop", "augment", "drop", "target")}
    compact = [each for key in ("image", "label") for each in usual.get_parsed_content(f"compact::{key}")]
    on_device = layered.get_parsed_content("train::trainer::prepare_batch").transforms.transforms
    assert kinds(on_device) == kinds([*steps["augment"], *steps["drop"], *steps["target"]])
    assert len(steps["augment"]) > 8
    in_workers = layered.get_parsed_content("train::dataset::augment")
    assert kinds(in_workers) == kinds([*steps["crop"], RandSeedd(), *compact])
    rotation = on_device[0].rand_affine
    assert rotation.rand_affine_grid.device == rotation.resampler.device == "cpu"


@pytest.mark.parametrize(
    ("layers", "steps"),
    [
        ((), "train::dataset::augment"),
        ((), "train::preprocessing::transforms"),
        ((LAYER,), "train::trainer::prepare_batch::transforms"),
    ],
)
def test_modalities_are_dropped_as_recorded_whatever_replaces_the_augmentation(layers, steps, parsed_once):
    parser = parser_with(*layers)
    parser["augment"], parser["modality_dropout"] = [], 0.4
    drops = [step for step in parser.get_parsed_content(steps) if isinstance(step, RandDropChannelsd)]
    assert [drop.share for drop in drops] == [0.4]


def test_each_patch_becomes_what_a_worker_makes_of_it_with_the_same_seed(augment):
    batch = batch_of(range(20))
    images, targets = augment(batch, "cpu", **FLOAT)
    usual = parser_with()
    steps = Compose([step for name in ("augment", "drop", "target") for step in usual.get_parsed_content(name)])
    for index in range(20):
        steps.set_random_state(index)
        expected = steps({"image": batch["image"][index].float(), "label": batch["label"][index]})
        assert torch.equal(images[index], expected["image"]) and torch.equal(targets[index], expected["label"])
    assert type(images) is torch.Tensor and images.dtype is targets.dtype is torch.float32


def test_a_batch_depends_on_its_seeds_alone_and_each_patch_has_its_own(augment):
    first = augment(batch_of([5, 6, 7, 5]), "cpu", **FLOAT)[0]
    torch.manual_seed(1), np.random.seed(1)
    again = augment(batch_of([7, 5, 8, 6]), "cpu", **FLOAT)[0]
    assert torch.equal(first[[2, 0, 1]], again[[0, 1, 3]]) and torch.equal(first[0], first[3])
    different = [first[0], first[1], first[2], again[2]]
    assert all(not torch.equal(one, other) for one in different for other in different if one is not other)


def test_a_label_stays_integer_and_where_the_image_shows_it(parsed_once):
    parser = parser_with(LAYER)
    places = [step for step in parser["augment"] if "label" in step["keys"]]
    assert [step["_target_"] for step in places] == [
        "tumour.patches.transforms.RandAffineFloat32d",
        *["RandFlipd"] * 3,
    ]
    places[0]["prob"] = 1.0
    augment = AugmentBatch([step for index in range(4) for step in [parser.get_parsed_content(f"augment::{index}")]])
    label = torch.zeros(1, 1, 24, 20, 16)
    label[..., 3:17, 4:9, 5:14] = label[..., 3:7, 4:16, 5:14] = 2  # equal to none of its mirror images
    batch = {"image": label.repeat(10, 1, 1, 1, 1), "label": label.byte().repeat(10, 1, 1, 1, 1)}
    images, labels = augment(batch | {"seed": torch.arange(10)}, "cpu", **FLOAT)
    assert set(labels.unique().tolist()) == {0, 2} and len({tuple(each.flatten().tolist()) for each in labels}) == 10
    overlap = ((images > 1) & (labels == 2)).flatten(1).sum(1) / ((images > 1) | (labels == 2)).flatten(1).sum(1)
    assert overlap.min() > 0.85  # trilinear and nearest differ at the surface


def seeds_of(epoch, workers):
    items = [{"case": f"{number}", "image": number} for number in range(5)]
    dataset = datasets.cached(items, [], [RandSeedd()], "memory", "")
    draws = datasets.Draws(dataset, iterations=4, batch_size=2, seed=0)
    draws.set_epoch(epoch)
    loader = DataLoader(datasets.Drawn(dataset), batch_size=2, sampler=draws, num_workers=workers)
    return [seed for batch in loader for seed in batch["seed"].tolist()]


def test_every_draw_has_a_seed_of_its_own_with_any_number_of_workers():
    assert seeds_of(1, 0) == seeds_of(1, 2)
    assert len({*seeds_of(1, 0), *seeds_of(2, 0)}) == 16
