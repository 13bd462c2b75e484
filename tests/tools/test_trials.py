"""Bundles and settings are compared with one command, which resumes where it stopped."""

import json
import shutil
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tumour.errors import InputError, OptionError
from tumour.runs.record import MAIN
from tumour.scores.tables import write_scores

from tests.conftest import BUNDLES, ROOT, here
from tools import trials
from tools.bundles import files_of

pytestmark = pytest.mark.usefixtures("at_the_root")

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


@pytest.fixture
def no_processes(monkeypatch):
    """The runs of a trial in the process of the test."""
    monkeypatch.setattr(trials, "status_of", lambda command: here(command).returncode)


def lines(text):
    return [
        line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ") and "---" not in line
    ]


def test_all_bundles_stand_in_one_table_with_their_differences(patients, tmp_path, monkeypatch, no_processes):
    text = trials.compare_bundles(str(tmp_path), "brats2021", str(patients("brats2021")), precision="float32", **TINY)
    assert lines(text)[1:] == ["unet3d", *sorted(set(BUNDLES) - {"unet3d"})]
    assert "Dice, resunet - unet3d:" in text and (tmp_path / "comparison.md").read_text() == text + "\n"
    told = json.loads((tmp_path / "resunet" / "trial.json").read_text())
    record = json.loads((tmp_path / "resunet" / "results" / "runs" / "training.json").read_text())
    assert told["seconds per step"] > 0 and told["peak GB"] == record["peak_memory_gb"][MAIN] > 0

    def again(*args):
        raise AssertionError("what is done is not run again")

    monkeypatch.setattr(trials, "status_of", again)
    assert (
        trials.compare_bundles(str(tmp_path), "brats2021", str(patients("brats2021")), precision="float32", **TINY)
        == text
    )


def test_the_attentions_of_a_bundle_stand_in_one_table(patients, tmp_path, no_processes):
    data = str(patients("brats2021"))
    options = {"precision": "float32", **TINY}
    text = trials.compare_settings(str(tmp_path), "brats2021", data, "neuroseg3d", "attention", **options)
    assert lines(text)[1:] == ["spatial", "channel", "cbam", "none"]
    assert "Dice, none - spatial:" in text
    with pytest.raises(InputError, match="over must be one of attention, size, loss"):
        trials.compare_settings(str(tmp_path), "brats2021", data, "neuroseg3d", "colour")


def test_recipes_stand_beside_our_default_with_every_seed(patients, tmp_path, monkeypatch, no_processes):
    """The difference is that of the same scans: of each seed's own test patients."""
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


def write_run(folder, dice):
    """The results of a trial with these Dice of WT by case; no case has ET, and IoU is far from Dice."""
    about: dict[str, Any] = {"kind": "region", "hd95": 2.0, "lesion_dice": 0.0}
    rows = [{"case": case, "region": "WT", "dice": value, "iou": value / 9, **about} for case, value in dice.items()]
    rows += [{"case": case, "region": "ET", **about, "dice": np.nan, "iou": np.nan, "hd95": np.nan} for case in dice]
    write_scores(rows, [], str(folder / "results" / "scores"), challenge="goat2026")


def test_a_region_that_no_case_has_leaves_its_cells_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "cost", lambda *_, **__: (1.0, 2.0))
    write_run(tmp_path, {"a": 0.4, "b": 0.6})
    row = trials.row_of(tmp_path, "unet3d", {}, {"seconds per step": 1.0, "peak GB": 3.0})
    assert row["peak GB"] == "3.0" and row["HD95 WT"] == "2.0 (2.0 to 2.0)"
    assert (row["Dice WT"], row["Dice ET"], row["HD95 ET"]) == ("0.500 (0.400 to 0.600)", "", "")


def test_a_difference_is_that_of_the_later_trial_from_the_first_in_dice(tmp_path, monkeypatch):
    """0.1 and 0.3 better: by 0.2, in an interval from 0.1 to 0.3; the first left out one scan."""
    dice = {"first": {"a": 0.4, "b": 0.5}, "second": {"a": 0.5, "b": 0.8, "hard": 0.1}}
    monkeypatch.setattr(trials, "trial", lambda folder, *_: write_run(folder, dice[folder.name]) or {})
    monkeypatch.setattr(trials, "row_of", lambda *_: {})
    for name in ("check_command", "require_same_trials"):
        monkeypatch.setattr(trials, name, lambda *_: None)
    text = trials.compare_trials(str(tmp_path), {name: ("unet3d", {}) for name in dice})
    assert "Not scored by all, and so in some of the means alone: hard." in text
    columns, values = text.partition("Dice, second - first:\n")[2].splitlines()
    found = dict(zip(["region", *columns.replace("B - A", "mean").split()], values.split(), strict=True))
    assert found["region"] == "WT" and found["cases"] == "2"
    assert [float(found[name]) for name in ("mean", "from", "to")] == [0.2, 0.1, 0.3]


@pytest.mark.parametrize("memory", [{}, {"peak GB": 3.0}])
def test_the_row_of_a_recipe_is_its_difference_from_the_default_on_the_same_scans(memory, monkeypatch):
    """0.1 and 0.3 worse; on Windows memory is not measured."""
    monkeypatch.setattr(trials, "RECIPES", {"": "neuroseg3d", "other": "unet3d"})
    index = pd.MultiIndex.from_product([[0, 1], ["a"]], names=["seed", "case"])
    scores = pd.DataFrame({"": [0.6, 0.9], "other": [0.5, 0.6]}, index)
    costs = pd.DataFrame([{"steps": 4.0, "minutes": 1.0, **memory}, {"steps": 4.0, "minutes": 2.0, **memory}])
    row = trials.recipe_row("other", costs, scores)
    assert row["minus default"] == "-0.200 (-0.300 to -0.100)" and row["mean Dice"] == "0.550 (0.500 to 0.600)"
    assert (row["bundle"], row["minutes"], row["by seed"]) == ("unet3d", "1.0, 2.0", "0.500, 0.600")
    assert row.get("peak GB") == (f"{memory['peak GB']}" if memory else None)
    assert trials.recipe_row("", costs, scores)["minus default"] == ""


def test_a_recipe_is_merged_on_top_of_its_bundle_as_by_make_train(tmp_path):
    command = trials.command_of("training", tmp_path, files_of("resunet", "metastases_brats2024"))
    assert command[command.index("--args_file") + 1] == "bundles/resunet/args.yaml"
    assert command[command.index("--+config_file") + 1] == "['bundles/common/recipes/metastases_brats2024.yaml']"
    with pytest.raises(OptionError, match="recipe must be one of"):
        files_of("resunet", "nothing")


def test_an_interrupted_measurement_of_the_speed_is_completed(tmp_path, monkeypatch):
    """The first epoch, which is not counted, may be all that there is."""
    log, runs = tmp_path / "results" / "training.csv", []

    def train(*args):
        runs.append(args)
        pd.DataFrame({"epoch": [1, 2, 3, 4], "seconds": [90, 5, 5, 5]}).to_csv(log, index=False)

    log.parent.mkdir()
    log.write_text("epoch,seconds\n1,90\n")
    monkeypatch.setattr(trials, "run", train)
    assert [trials.steps_in(1, tmp_path, {}) for _ in range(2)] == [120, 120] and len(runs) == 1


def test_a_trial_that_fails_is_told_with_its_command(patients, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "status_of", lambda _: 1)
    with pytest.raises(InputError, match="run training .* ended with status 1"):
        trials.compare_bundles(str(tmp_path), "brats2021", str(patients("brats2021")), **TINY)


@pytest.mark.parametrize("compared", [trials.compare_bundles, trials.compare_settings, trials.compare_recipes])
def test_finished_trials_are_not_mixed_with_those_of_other_settings_or_files(compared, patients, tmp_path, monkeypatch):
    """The finished ones are not repeated, so their rows would be those of the old settings."""
    data, out = shutil.copytree(patients("brats2021"), tmp_path / "data"), str(tmp_path / "out")
    started: list[Any] = []
    monkeypatch.setattr(trials, "run", lambda *_: started.append(_) or sys.exit())
    more = {trials.compare_settings: {"bundle": "unet3d", "over": "size"}, trials.compare_recipes: {"minutes": 1}}
    given = {"batch_size": 1, **more.get(compared, {})}
    with pytest.raises(SystemExit):
        compared(out, "brats2021", str(data), **given)
    changed: list[dict[str, Any]] = [{"batch_size": 2}, {"learning_rate": 0.01}]
    changed += {trials.compare_settings: [{"bundle": "resunet"}], trials.compare_recipes: [{"minutes": 2}]}.get(
        compared, []
    )
    for each in changed:
        with pytest.raises(OptionError, match=f"was started with ({'|'.join(each)}|args_files) = .*; set it back"):
            compared(out, "brats2021", str(data), **{**given, **each})
    shutil.copy(next(data.glob("*0/*_seg.nii.gz")), next(data.glob("*1/*_seg.nii.gz")))
    with pytest.raises(InputError, match=r"other files of BraTS2021_\d*1; restore its label"):
        compared(out, "brats2021", str(data), **given)
    assert len(started) == 1


@pytest.mark.parametrize("compared", [trials.compare_bundles, trials.compare_recipes])
def test_a_config_file_of_the_user_is_merged_on_top_of_each_recipe(compared, patients, tmp_path, monkeypatch):
    """It must not replace the recipe, or all rows would be those of one training."""
    file, used = "bundles/common/augment_on_device.yaml", []
    monkeypatch.setattr(trials, "check_command", used.append)
    monkeypatch.setattr(trials, "require_same_trials", lambda *_, **__: sys.exit())
    more = {"minutes": 1} if compared is trials.compare_recipes else {}
    with pytest.raises(SystemExit):
        compared(str(tmp_path), "brats2021", str(tmp_path), **{"+config_file": file, **more})
    added = [command[command.index("--+config_file") + 1] for command in used]
    recipes = [name for name in trials.RECIPES if name and more]
    wanted = {f"bundles/common/recipes/{name}.yaml" for name in recipes}
    assert all(each.endswith(f"'{file}']") for each in added)
    assert {each for each in wanted if any(each in files for files in added)} == wanted


def test_trials_are_not_continued_from_other_weights(patients, tmp_path, monkeypatch):
    start, data = tmp_path / "start", str(patients("brats2021"))
    start.mkdir()
    monkeypatch.setattr(trials, "run", lambda *_: sys.exit())
    for content in (b"first", b"second"):
        (start / "model.pt").write_bytes(content)
        with pytest.raises(SystemExit if content == b"first" else OptionError, match="from other weights|^$"):
            trials.compare_bundles(str(tmp_path / "out"), "brats2021", data, start_from=str(start))
    with pytest.raises(OptionError, match="set start_from back"):
        trials.compare_bundles(str(tmp_path / "out"), "brats2021", data)


@pytest.mark.parametrize(
    ("compared", "given", "message"),
    [
        (trials.compare_settings, {"bundle": "unet", "over": "size"}, "bundle must be one of .* unet3d"),
        (trials.compare_settings, {"bundle": "unet3d", "over": "attention"}, "has no 'attention'"),
        (trials.compare_settings, {"bundle": "unet3d", "over": "size", "epoch": 3}, "the nearest is epochs"),
        (trials.compare_recipes, {"minutes": 1, "epochs": 0}, "epochs must be an integer of 1 or more"),
        (trials.compare_recipes, {"minutes": 0}, "--minutes is 0"),
        (trials.compare_recipes, {"minutes": 1, "seeds": "a"}, "--seeds must be whole numbers, as 0,1,2"),
    ],
)
def test_what_no_trial_can_do_is_refused_before_the_first(compared, given, message, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "run", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(OptionError, match=message):
        compared(str(tmp_path / "out"), "brats2021", str(tmp_path), **given)
    assert not (tmp_path / "out").exists()
