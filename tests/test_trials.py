"""Bundles and settings are compared in one command, which goes on where it stopped."""

import json

import pytest

from tests.conftest import BUNDLES, ROOT
from tools import trials
from tools.errors import InputError

TINY = {
    "patch_size": [32, 32, 32],
    "epochs": 1,
    "iterations_per_epoch": 2,
    "val_interval": 1,
    "workers": 0,
    "overlap": 0,
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def lines(text):
    return [
        line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ") and "---" not in line
    ]


def test_all_bundles_stand_in_one_table_with_their_differences(patients, tmp_path, monkeypatch):
    text = trials.bundles(str(tmp_path), "brats2021", str(patients("brats2021")), precision="float32", **TINY)
    assert lines(text)[1:] == ["unet3d", *sorted(set(BUNDLES) - {"unet3d"})]
    assert "Dice, resunet less unet3d:" in text and (tmp_path / "comparison.md").read_text() == text + "\n"
    told = json.loads((tmp_path / "resunet" / "trial.json").read_text())
    assert told["seconds a step"] > 0 and 0.1 < told["peak GB"] < 24

    def again(*args):
        raise AssertionError("what is done is not run again")

    monkeypatch.setattr(trials.subprocess, "Popen", again)
    assert trials.bundles(str(tmp_path), "brats2021", str(patients("brats2021")), precision="float32", **TINY) == text


def test_the_attentions_of_a_bundle_stand_in_one_table(patients, tmp_path):
    data = str(patients("brats2021"))
    text = trials.settings(str(tmp_path), "brats2021", data, "neuroseg3d", "attention", precision="float32", **TINY)
    assert lines(text)[1:] == ["spatial", "channel", "cbam", "none"]
    assert "Dice, none less spatial:" in text
    with pytest.raises(InputError, match="over must be one of attention, size, loss"):
        trials.settings(str(tmp_path), "brats2021", data, "neuroseg3d", "colour")


def test_a_trial_that_fails_is_told_with_its_command(tmp_path):
    with pytest.raises(InputError, match="run training .* failed"):
        trials.bundles(str(tmp_path), "brats2021", str(tmp_path / "nowhere"), **TINY)
