"""A misspelt option or a value out of its range is refused before any work, in one sentence that says what to do."""

import json
import re
import sys
from contextlib import suppress

import pytest
import yaml
from tumour.cases.parts import FOLDS
from tumour.errors import InputError
from tumour.runs import layers, options
from tumour.runs.inferers import PRECISIONS
from tumour.scores.challenges import CHALLENGES

from tests.conftest import BUNDLES, ROOT, arguments, here, run
from tools.show import merged


@pytest.fixture(autouse=True)
def at_the_root(parsed_once):
    """At the root of the repository, with each config file parsed once."""


@pytest.fixture
def check():
    def check(*given, run_id="training", bundle="neuroseg3d"):
        words = [run_id] if run_id else []
        command = ["run", *words, "--args_file", f"bundles/{bundle}/args.yaml", *map(str, given)]
        options.check_command(command)

    return check


def refused(check, *given, **bundle):
    with pytest.raises(InputError) as error:
        check(*given, **bundle)
    text = str(error.value)
    assert "\n" not in text and text.endswith((".", "'")) and len(text) < 300, text
    return text


MISSPELT = {  # and the name that the sentence must give
    "epoch": "epochs",
    "lr": "learning_rate",
    "wd": "weight_decay",
    "learning_rat": "learning_rate",
    "Epochs": "epochs",
    "batchsize": "batch_size",
    "batch_sizes": "batch_size",
    "mirrr": "mirror",
    "ckptdir": "ckpt_dir",
    "data_dir": "dataset_dir",
    "outputdir": "output_dir",
    "chalenge": "challenge",
    "seeds": "seed",
    "spacings": "spacing",
    "modality": "modalities",
    "patchsize": "patch_size",
    "resum": "resume",
    "worker": "workers",
    "config_fil": "config_file",
    "networkdef": "network_def",
    "optimiser": "optimizer",
    "after_treatment::treshold": "threshold",
    "optimizer::learning_rate": "lr",
    "optimizer::weight_decai": "weight_decay",
    "network_def::network::attenton": "attention",
    "train::trainer::max_epoch": "max_epochs",
    "train::trainr": "trainer",
    "validate::evaluator::networks": "network",
    "sliding_window::inferer::inferer::overlapp": "overlap",
    "budgets::cpu::epoch": "epochs",
    "sizes::fast::filter": "filters",
}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_option_is_refused_with_the_nearest_name(check, name):
    assert MISSPELT[name] in refused(check, f"--{name}", "3")


NONSENSE = [  # and part of the sentence
    ("learning_rate", "1e30", "from 1e-08 to 1"),
    ("learning_rate", "-0.1", "from 1e-08 to 1"),
    ("learning_rate", "0", "from 1e-08 to 1"),
    ("learning_rate", "nan", "a number"),
    ("learning_rate", "$float('nan')", "a number"),
    ("max_gradient_norm", "-1", "of 0.001 or more"),
    ("epochs", "1.5", "an integer of 1 or more"),
    ("epochs", "three", "an integer of 1 or more"),
    ("epochs", "0", "of 1 or more"),
    ("epochs", "True", "an integer"),
    ("epochs", "$1 / 0", "division by zero"),
    ("epochs", "@epoch", "epochs"),
    ("epochs", "None", "leave it out"),
    ("iterations_per_epoch", "-5", "of 1 or more"),
    ("batch_size", "0", "from 1 to 1024"),
    ("batch_size", "two", "an integer"),
    ("val_interval", "0", "of 1 or more"),
    ("patch_size", "64", "a list of 3 integers"),
    ("patch_size", "[64,64]", "a list of 3 integers"),
    ("patch_size", "abc", "a list of 3 integers"),
    ("patch_size", "[64, 64, 64.5]", "a list of 3 integers"),
    ("patch_size", "[0, 0, 0]", "of 16 or more"),
    ("overlap", "1.0", "from 0 to 0.95"),
    ("overlap", "50", "from 0 to 0.95"),
    ("device", "gpu", "cpu, cuda"),
    ("device", "cuda:99", "--device cpu"),
    ("device", "mps", "0 such devices; take --device cpu"),
    ("device", "xpu:1", "0 such devices; take --device cpu"),
    ("loss", "dice", "@losses::dice"),
    ("loss", "@losses::dics", "dice"),
    ("head", "classes", "a part of the config"),
    ("cohort", "brats2022", "brats2021"),
    ("size", "huge", "fast, full"),
    ("fold", "5", "from 0 to 4"),
    ("fold", "some", "from 0 to 4 or all"),
    ("seed", "-1", "from 0"),
    ("test_share", "20", "from 0 to 1"),
    ("workers", "-1", "from 0"),
    ("warmup", "1.5", "an integer"),
    ("warmup", "1500", "from 0 to 1499"),
    ("modality_dropout", "2", "from 0 to 1"),
    ("weight_decay", "-1", "from 0 to 1"),
    ("patience", "never", "an integer"),
    ("cache", "ram", "auto, memory, disk, none"),
    ("precision", "fp16", "float32, bfloat16, float16"),
    ("challenge", "brats", "legacy"),
    ("spacing", "1", "a list of 3 numbers"),
    ("spacing", "[1, 1, 0]", "from 0.1 to 10"),
    ("modalities", "T1", "a list"),
    ("modalities", "[T1, T1]", "without repetitions"),
    ("resume", "perhaps", "true or false"),
    ("mirror", "2", "true or false"),
    ("after_treatment::threshold", "{ET: 45}", "from 0 to 1"),
    ("after_treatment::threshold", "0.45", "by region"),
    ("after_treatment::smallest_piece", "{ET: -1}", "of 0 or more"),
    ("after_treatment", "{treshold: {ET: 0.4}}", "after_treatment::threshold"),
    ("optimizer", "adam", "@optimizer"),
    ("augment", "none", "a list"),
    ("network_def", "unet", "network_def"),
]


@pytest.mark.parametrize(("name", "value", "part"), NONSENSE)
def test_a_value_out_of_its_range_is_refused_with_setting_value_and_range(check, name, value, part):
    text = refused(check, f"--{name}", value)
    assert part in text and name.split("::")[0] in text


@pytest.mark.parametrize(
    "folder", ["2021", "1e3", "None", "True", "~/scans", "a#b", "a,b", "(x)", "[x]", "'q'", "0x10"]
)
@pytest.mark.parametrize("name", ["dataset_dir", "output_dir"])
def test_a_folder_whose_name_is_changed_on_the_way_is_refused_with_what_to_write(check, name, folder):
    text = refused(check, f"--{name}", folder)
    assert folder in text or "~" in text
    assert re.search(r"rename|'?\./|write '/", text)
    if "#" not in folder and "~" not in folder:
        check(f"--{name}", f"./{folder}")


@pytest.mark.parametrize("name", ["output_dir", "ckpt_dir", "segmentations", "scores", "cache_dir", "report_dir"])
def test_an_empty_path_is_refused_since_results_would_go_to_the_root_of_the_disk(check, name):
    assert f"{name} is empty" in refused(check, f"--{name}", "")
    check("--dataset_dir", "", run_id="reporting")  # of `make report`


@pytest.mark.parametrize("folder", ["my data", "a(b)", 'say "x"', "it's", "Köln", "a&b;c", "a::b", "2021-05", "x~y"])
def test_a_folder_may_be_called_what_you_like(check, folder):
    check("--dataset_dir", folder, f"--output_dir={folder}")


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("run_id", ["training", "evaluating", "inferring", "fitting", "reporting"])
def test_the_defaults_of_every_bundle_are_within_their_ranges(check, bundle, run_id):
    check(bundle=bundle, run_id=run_id)
    check("--epochs", "1", bundle=bundle, run_id=run_id)


@pytest.mark.parametrize("path", sorted((ROOT / "bundles/common/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_names_ids_that_exist(check, path):
    check("--+config_file", f"['{path}']")


def test_a_file_on_top_may_add_parts_that_it_refers_to_and_no_others(check, tmp_path):
    mine = tmp_path / "mine.yaml"
    layer = ("--+config_file", f"['{mine}']")
    mine.write_text("sharpen: [{_target_: Identityd, keys: image}]\nresized: '@sharpen'\n")
    check(*layer)
    mine.write_text("learning_rat: 0.1\n")
    text = refused(check, *layer)
    assert str(mine) in text and "learning_rate" in text
    mine.write_text("epochs: three\n")
    assert "epochs" in refused(check, *layer)


MINE = {"files": {"T1": "_a", "label": "_l"}, "label_values": [0, 2, 1, 3], "patient": "(.+)", "challenge": "legacy"}


@pytest.mark.parametrize("key", ["+cohorts", "cohorts::mine"])
def test_a_file_on_top_may_add_a_data_set_and_any_part_that_it_extends(key, check, tmp_path):
    path, modalities = tmp_path / "mine.yaml", ("--modalities", "[T1]")
    layer, own = ("--+config_file", f"['{path}']"), ("--cohort", "mine", *modalities)

    def write(entry, **more):
        path.write_text(json.dumps({key: {"mine": entry} if key.startswith("+") else entry, **more}))
        layers._parsed.cache_clear()  # it knows a file by its time

    write(MINE, **{"+losses": {"mine": {"_target_": "torch.nn.L1Loss"}}})
    check(*layer, *own, "--loss", "@losses::mine")
    write({**MINE, "label_values": [0, 1]})
    assert "cohort mine has 2 label_values for 4 classes" in refused(check, *layer, *own)
    write(MINE, **{"+losses": [1]})
    assert f"'{path}': +losses must be entries by name" in refused(check, *layer, *own)


def test_a_data_set_may_be_added_on_the_command_line(check):
    check("--cohorts::mine", json.dumps(MINE), "--cohort", "mine", "--modalities", "[T1]")
    assert "has no 'brats2o21'" in refused(check, "--cohorts::brats2o21::challenge", "legacy")


def test_an_option_that_would_replace_what_it_should_extend_is_refused(check):
    """MONAI copies `--+augment` to `augment`, and the run would have no other augmentation."""
    text = refused(check, "--+augment", "[{_target_: Identityd, keys: image}]")
    assert "--+augment would replace augment" in text and "--+config_file" in text


def test_an_argument_that_a_class_takes_is_an_option_and_another_is_not(check):
    check("--optimizer::amsgrad", "True", "--network_def::network::dropout", "0.1", bundle="unet3d")
    assert "attention" in refused(check, "--network_def::network::attention", "channel", bundle="unet3d")


@pytest.mark.parametrize("value", "true True TRUE yes Yes no off on On 0 1 false FALSE".split())
def test_a_switch_takes_every_usual_spelling(check, value):
    names = ("resume", "mirror", "report_at_end", "strict", "compile")
    check(*(f"--{name}={value}" for name in names))
    parser = merged("bundles/unet3d/args.yaml")
    parser.update(dict.fromkeys(names, value))
    meant = value.lower() in ("true", "yes", "on", "1")
    assert [parser.get_parsed_content(name) for name in ("resuming", "strictly", "compiled", "reported")] == [meant] * 4
    assert len(parser.get_parsed_content("sliding_window").inferer.flips) == (8 if meant else 1)


def test_a_loss_for_another_head_and_weights_without_use_are_refused(check):
    classes, weights = ("--head", "@heads::classes"), ("--channel_weights", "[1, 2, 3]")
    assert "@losses::dice_ce is a loss for softmax" in refused(check, "--loss", "@losses::dice_ce")
    assert "@losses::blob is a loss for sigmoid" in refused(check, "--loss", "@losses::blob", *classes)
    assert "channel_weights has no effect" in refused(check, *weights)
    check("--loss", "@losses::dice_ce", *classes)
    check("--loss", "@losses::focal", *weights)
    check(*classes)


@pytest.mark.parametrize("given", [("--fold", "all"), ("--keep", "last")])
def test_patience_without_a_selection_is_refused_since_the_training_would_never_stop(check, given):
    assert "patience is 20, which has no effect with keep last" in refused(check, "--patience", "20", *given)
    check("--patience", "0", *given)
    check("--patience", "20")


@pytest.mark.parametrize("run_id", ["trainig", "run", ""])
def test_an_unknown_run_id_is_refused_with_those_there_are(check, run_id):
    assert "training, " in refused(check, run_id=run_id)


def test_words_that_belong_to_no_option_are_refused(check):
    assert "in quotes" in refused(check, "--patch_size", "64", "64", "64")


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("wrong", [{"epoch": 3}, {"batch_size": 0}, {"resume": "perhaps"}])
def test_a_run_ends_before_any_work_with_the_sentence_alone(bundle, wrong, tmp_path):
    done = run("training", bundle, tmp_path, "brats2021", tmp_path / "nowhere", **wrong)
    sentence = done.stderr.strip().splitlines()[-1]
    assert done.returncode and sentence.startswith("error: ") and next(iter(wrong)) in sentence
    assert "Traceback" not in done.stderr and "running on" not in done.stdout and not [*tmp_path.iterdir()]


def test_words_that_make_monai_skip_initialize_are_refused_all_the_same(tmp_path):
    done = here([*arguments("training", BUNDLES[0], tmp_path, "brats2021", tmp_path), "64", "64"])
    assert done.returncode and "error: '64' belongs to no option" in done.stderr and "Traceback" not in done.stderr


def test_python_code_that_uses_the_config_is_not_checked(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["client.py", "run", "--epoch", "3"])
    options.check_options()


def test_a_command_line_is_checked_until_it_was_found_to_be_right(monkeypatch):
    seen = []

    def check(command):
        seen.append(command[-1])
        if seen == ["training"]:
            raise InputError("It is wrong the first time.")

    for name, double in (("started_by_monai", lambda: True), ("tell_errors_plainly", id), ("check_command", check)):
        monkeypatch.setattr(options, name, double)
    for run_id in ("training", "inferring"):
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", run_id])
        for _ in range(3):
            with suppress(InputError):
                options.check_options()
    assert seen == ["training", "training", "inferring"]


def test_settings_that_other_pages_limit_too_have_the_same_limits():
    rules = dict(options.rules(yaml.safe_load((ROOT / "bundles/common/settings.yaml").read_text())["settings"]))
    assert rules["precision"]["choices"] == list(PRECISIONS) and rules["challenge"]["choices"] == list(CHALLENGES)
    assert merged("bundles/unet3d/args.yaml")["folds"] == FOLDS


def test_every_plain_setting_has_a_rule():
    config = merged("bundles/unet3d/args.yaml").get()
    plain = [name for name, value in config.items() if isinstance(value, bool | int | float)]
    assert set(plain) <= {name for name, _ in options.rules(config["settings"])}


def test_an_unknown_first_part_of_an_option_is_refused_before_monai_merges_it(tmp_path):
    wrong = {"after_treatmen::threshold": 0.4, "traceback": False}
    done = run("training", BUNDLES[0], tmp_path, "brats2021", tmp_path / "nowhere", **wrong)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "There is no option 'after_treatmen'; the nearest is after_treatment." in done.stderr


def test_a_class_that_does_not_exist_is_refused_also_in_a_part_that_is_used_later(check, tmp_path):
    assert "'UNett'" in refused(check, "--network_def::network::_target_", "UNett")
    mine = tmp_path / "mine.yaml"
    mine.write_text("+evaluate::handlers: [{_target_: tumour.scores.Nothing}]\n")
    text = refused(check, "--+config_file", f"['{mine}']")
    assert str(mine) in text and "'tumour.scores.Nothing'" in text


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.yaml", b"epochs: [1\nfold: {", "no JSON or YAML file of settings .line 2: "),
        ("a.yaml", b"epochs:\n\t- 3\n", "no JSON or YAML file of settings .line 2: "),
        ("a.json", b"{", "no JSON or YAML file of settings"),
        ("a.yaml", b"epochs: \xff", "no JSON or YAML file of settings"),
        ("a.yaml", bytes(20), "no JSON or YAML file of settings"),
        ("a.txt", b"epochs: 3", "no JSON or YAML file of settings"),
        ("a.yaml", b"- epochs\n", "must contain settings by name"),
        ("a.yaml", b"", "must contain settings by name"),
        ("a.yaml", b"1: 3\n", "must contain settings by name"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_with_the_place(name, content, why, check, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    layers._parsed.cache_clear()  # it knows a file by its time
    for option in (("--+config_file", f"['{path}']"), ("--tracking", path)):
        assert re.search(f"'{path}'.* {why}", refused(check, *option))
    if "by name" not in why:
        assert "loss refers to no file of settings" in refused(check, "--loss", f"%{path}::x")


def test_tracking_without_its_parts_is_refused(check, tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3\n")
    assert "configs and handlers_id" in refused(check, "--tracking", tmp_path / "a.yaml")


@pytest.mark.parametrize("given", ["mlflow", "bundles/common/mlflow.yaml"])
def test_tracking_without_mlflow_is_refused_before_any_work(given, check, monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert "MLflow, which is not installed; run `make setup EXTRA=tracking`" in refused(check, "--tracking", given)


def test_a_misspelt_id_in_a_recipe_of_a_release_is_refused(tmp_path):
    for name, content in {"train": {"epochs": 1, "cohort": "x"}, "inference": {"overlap": 0.5}, "evaluate": {}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for content in ({"overlap": 0.2}, {"epochs": 2, "+initialize": []}):
        options.require_known(content, tmp_path / "recipe.json")
    with pytest.raises(InputError, match="recipe.json': There is no option 'epoch'; the nearest is epochs"):
        options.require_known({"epoch": 2}, tmp_path / "recipe.json")
