"""The recorded settings of a run are all that differ from the bundle's config files, wherever they come from."""

import json

import pytest
from tumour.runs import layers
from tumour.runs.layers import changed_settings, config_of

pytestmark = pytest.mark.usefixtures("at_the_root")

BUNDLE = "bundles/neuroseg3d/args.yaml"
RECIPE = "bundles/common/recipes/neuroseg3d_brats2021.yaml"


def changes(*options):
    return config_of(["run", "training", *options])[1]


def test_options_that_change_nothing_and_folders_are_not_recorded():
    places = ["--dataset_dir", "d", "--output_dir=o", "--ckpt_dir", "c", "--bundle_root", "b"]
    config, run = config_of(["run", "training", "--args_file", BUNDLE, "--fold", "0", *places])
    assert run == {"files": [], "settings": []}
    assert config["dataset_dir"] == "" and config["output_dir"].startswith("$@bundle_root")


def test_settings_of_a_recipe_and_of_the_command_line_are_recorded():
    options = ["--args_file", BUNDLE, "--+config_file", f"['{RECIPE}']", "--network_def::network::attention", "channel"]
    run = changes(*options, "--patch_size", "[32, 32, 32]")
    assert run["files"] == [RECIPE]
    assert set(run["settings"]) == {
        *["cohort = brats2021", "loss = @losses::dice", "val_interval = 1"],
        *["network_def::network::attention = channel", "patch_size = [32, 32, 32]"],
    }
    assert "loss = @losses::focal" in changes(*options, "--loss", "@losses::focal")["settings"]


def test_settings_of_an_added_config_file_are_recorded(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("learning_rate: 0.1\nepochs: 7\n+imports: [$import math]\n")
    config, run = config_of(["run", "training", "--args_file", BUNDLE, "--+config_file", str([str(mine)])])
    assert run["files"] == [str(mine)] and config["learning_rate"] == 0.1 and len(run["settings"]) == 3
    assert "epochs = 7" in run["settings"] and any("$import math" in line for line in run["settings"])


def test_the_configs_of_a_release_are_its_own_and_its_recipes_are_not(tmp_path):
    texts = {"train": {"a": 1, "run": "x"}, "evaluate": {"b": 2, "run": "y"}, "recipe": {"a": 5}}
    paths = {name: tmp_path / "configs" / f"{name}.json" for name in texts}
    paths["train"].parent.mkdir()
    for name, path in paths.items():
        path.write_text(json.dumps(texts[name]))
    assert changes("--config_file", str(paths["train"])) == {"files": [], "settings": []}
    assert changes("--config_file", str([str(path) for path in paths.values()])) == {
        "files": [str(paths["recipe"])],
        "settings": ["a = 5"],
    }


def test_a_setting_that_a_run_removes_or_adds_is_a_change():
    assert list(changed_settings({"a": {"b": 1, "c": [2]}}, {"a": {"c": [3], "d": {"e": 4}}})) == [
        *["a::b removed", "a::c = [3]", 'a::d = {"e": 4}'],
    ]


@pytest.mark.parametrize(
    ("command", "expected"),
    [("run training", False), ("run --run_id training", False), ("run inferring", True), ("run", True)],
)
def test_only_a_training_does_not_use_the_weights_in_its_folder(command, expected, monkeypatch):
    monkeypatch.setattr(layers, "started_by_monai", lambda: True)
    monkeypatch.setattr("sys.argv", ["monai.bundle", *command.split(), "--cohort", "brats2021"])
    assert layers.uses_weights() is expected
