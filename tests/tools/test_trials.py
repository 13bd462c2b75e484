"""Bundles and settings are compared with one command, which resumes where it stopped."""

import json

import pandas as pd
import pytest
from tumour.errors import InputError

from tests.conftest import BUNDLES
from tools import trials

pytestmark = pytest.mark.usefixtures("at_the_root")

TINY = {
    "patch_size": [32, 32, 32],
    "epochs": 1,
    "iterations_per_epoch": 2,
    "val_interval": 1,
    "workers": 0,
    "overlap": 0,
}


def lines(text):
    return [
        line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ") and "---" not in line
    ]


def test_all_bundles_are_in_one_table_with_their_differences(patients, tmp_path, monkeypatch):
    text = trials.compare_bundles(str(tmp_path), "brats2021", str(patients("brats2021")), precision="float32", **TINY)
    assert lines(text)[1:] == ["unet3d", *sorted(set(BUNDLES) - {"unet3d"})]
    assert "Dice, resunet - unet3d:" in text and (tmp_path / "comparison.md").read_text() == text + "\n"
    measured = json.loads((tmp_path / "resunet" / "trial.json").read_text())
    assert measured["seconds per step"] > 0 and 0.1 < measured["peak GB"] < 24

    def again(*args):
        raise AssertionError("what is done is not run again")

    monkeypatch.setattr(trials.subprocess, "Popen", again)
    assert (
        trials.compare_bundles(str(tmp_path), "brats2021", str(patients("brats2021")), precision="float32", **TINY)
        == text
    )


def test_the_attentions_of_a_bundle_are_in_one_table(patients, tmp_path):
    data = str(patients("brats2021"))
    options = {"precision": "float32", **TINY}
    text = trials.compare_settings(str(tmp_path), "brats2021", data, "neuroseg3d", "attention", **options)
    assert lines(text)[1:] == ["spatial", "channel", "cbam", "none"]
    assert "Dice, none - spatial:" in text
    with pytest.raises(InputError, match="over must be one of attention, size, loss"):
        trials.compare_settings(str(tmp_path), "brats2021", data, "neuroseg3d", "colour")


def test_recipes_are_compared_with_our_default_for_every_seed(patients, tmp_path, monkeypatch):
    """The difference is between scores of the same scans: the test patients of each seed."""
    recipe = "neuroseg3d_brats2021"
    monkeypatch.setattr(trials, "RECIPES", {"": "neuroseg3d", recipe: "unet3d"})
    monkeypatch.setattr(trials, "PACE_STEPS", 2)
    given = {name: value for name, value in TINY.items() if "epoch" not in name and name != "val_interval"}
    data, folder = str(patients("brats2021")), tmp_path
    text = trials.compare_recipes(str(folder), "brats2021", data, 1e-4, [0, 1], precision="float32", **given)
    ours, theirs = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()[4:6]]
    assert (ours[1], theirs[1], theirs[2], theirs[3]) == (
        "neuroseg3d, our default",
        recipe,
        "unet3d",
        str(trials.EPOCHS),
    )
    rows = {
        (name, seed): pd.read_csv(folder / name / f"seed{seed}/results/scores/scores.csv")
        for name in ("default", recipe)
        for seed in (0, 1)
    }
    dice = {each: frame[frame["kind"] == "region"].groupby("case")["dice"].mean() for each, frame in rows.items()}
    less = pd.concat([dice[recipe, seed] - dice["default", seed] for seed in (0, 1)])
    assert theirs[8].startswith(f"{less.mean():.3f} (") and f"{len(less)} test scans" in text
    assert ours[7] == ", ".join(f"{dice['default', seed].mean():.3f}" for seed in (0, 1))


def test_a_failed_trial_is_reported_with_its_command(tmp_path):
    with pytest.raises(InputError, match="run training .* failed"):
        trials.compare_bundles(str(tmp_path), "brats2021", str(tmp_path / "nowhere"), **TINY)
