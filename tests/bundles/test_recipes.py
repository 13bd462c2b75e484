"""Every recipe can be merged on top of every bundle; it trains, has the scores that it promises, and segments."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from tests.conftest import BUNDLES, ROOT, run, succeed
from tools import trials
from tools.show import merged

pytestmark = pytest.mark.usefixtures("at_the_root")

RECIPES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(ROOT.glob("bundles/common/recipes/*.yaml"))}
PROMISED = {  # columns of scores.csv
    "neuroseg3d_brats2021": ["dice", "iou"],
    "attention_dropout_brats2020": ["dice", "precision", "sensitivity", "specificity"],
    "metastases_brats2024": ["accuracy", "iou"],
    "unet_dicece_brats2023": ["dice", "iou"],  # F1 is the same number as Dice
    "attention_torchio_brats2020": ["dice"],
}
PICTURES = ["curves.png", "*_overlay.png"]  # curves over epochs; slices with reference and prediction
STATES_PICTURES = ["neuroseg3d_brats2021"]
TINY = {"unet_dicece_brats2023": {"sizes::full::filters": [8, 16, 16, 16]}, "metastases_brats2024": {"resize": []}}
recipes = pytest.mark.parametrize("recipe", RECIPES)


def test_there_are_the_five_recipes():
    assert set(RECIPES) == set(PROMISED) == set(trials.RECIPES) - {""}


@recipes
def test_a_recipe_is_short_and_states_the_authors_results_and_ours(recipe):
    text = (ROOT / "bundles/common/recipes" / f"{recipe}.yaml").read_text()
    assert len(text.splitlines()) <= 40 and "# Theirs" in text and "Ours: " in text


@recipes
@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_recipe_can_be_merged_on_top_of_every_bundle(recipe, bundle):
    parser = merged(f"bundles/{bundle}/args.yaml", f"bundles/common/recipes/{recipe}.yaml")
    if "sizes::full" in RECIPES[recipe]:
        parser["sizes::full::filters"] = [8, 16, 16, 16]
    parser["train::dataset::data"] = []
    parser["channel_weights"] = [1.0] * (5 if recipe == "unet_dicece_brats2023" else 4)
    network, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    channels = parser.get_parsed_content("head")["channels"]
    x = torch.randn(2, len(parser.get_parsed_content("modalities")), 32, 32, 32)
    y = network(x)
    assert y.shape == (2, len(channels), 32, 32, 32)
    target = torch.zeros_like(y)
    target[:, 0] = 1
    loss(y, target).backward()
    assert all(p.grad is not None for p in network.network.input_block.parameters() if p.requires_grad)
    for key in RECIPES[recipe]:
        assert key.split("::")[0] in parser.get(), key


@recipes
def test_a_recipe_trains_scores_what_it_promises_and_segments(recipe, patients, tmp_path):
    if "torchio" in recipe and importlib.util.find_spec("torchio") is None:
        pytest.skip("torchio is not installed")
    bundle, cohort = trials.RECIPES[recipe], RECIPES[recipe]["cohort"]
    data = patients(cohort)
    settings = {"recipe": recipe, "batch_size": 2, **TINY.get(recipe, {})}
    succeed("training", bundle, tmp_path, cohort, data, **settings)
    log = pd.read_csv(tmp_path / "results" / "training.csv")
    assert np.isfinite(log[[f"train_{name}" for name in ("dice", "iou")] + ["loss", "validate_loss"]]).all(axis=None)
    assert np.isfinite(log[["validate_dice", "validate_iou"]]).all(axis=None)
    succeed("evaluating", bundle, tmp_path, cohort, data, report_at_end=recipe in STATES_PICTURES, **settings)
    drawn = [list((tmp_path / "results" / "report").glob(picture)) for picture in PICTURES]
    assert all(drawn) == (recipe in STATES_PICTURES)
    scores = pd.read_csv(tmp_path / "results" / "scores" / "scores.csv").set_index("region")
    assert np.isfinite(scores.loc[["TC", "WT", "ET", "necrotic", "oedema", "enhancing"], PROMISED[recipe]]).all(
        axis=None
    )
    succeed("inferring", bundle, tmp_path, cohort, data, **settings)
    assert len(list((tmp_path / "results" / "segmentations").glob("*.nii.gz"))) == 6


def test_a_network_of_regions_is_refused_by_a_recipe_of_classes(patients, trained):
    done = run(
        "inferring", "neuroseg3d", trained("neuroseg3d"), "brats2021", patients("brats2021"), head="@heads::classes"
    )
    assert done.returncode == 2 and "head means the outputs" in done.stderr and "Traceback" not in done.stderr
