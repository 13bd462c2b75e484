"""A training may start from trained weights: with their settings, without forgetting their patients, and it resumes."""

import json
import shutil

import pytest
import torch
from tumour.cases.case import Case
from tumour.cases.parts import recorded_patients
from tumour.checks.usable import patients_of
from tumour.files import save_json
from tumour.runs.trained import settings_of

from tests.cohorts import COHORTS
from tests.conftest import BUNDLES, here
from tests.members import ensemble_of
from tools.command import run_command
from tools.show import merged

STILL = 1e-8  # a learning rate that leaves weights as they are
FIXED = {"epochs": 1, "iterations_per_epoch": 1, "workers": 0, "precision": "float32", "seed": 3, "fold": "all"}


def training(bundle, data, folder, **options):
    options = {"dataset_dir": data, "ckpt_dir": folder / "models", "output_dir": folder / "results", **FIXED, **options}
    return here(run_command("training", args_file=f"bundles/{bundle}/args.yaml", **options))


def parameters(folder):
    """The weights in a folder, without what batch normalisation counts."""
    weights = torch.load(folder / "model.pt", weights_only=True)
    return {name: value.float() for name, value in weights.items() if "running" not in name and "num" not in name}


def assert_equal(weights, others):
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=1e-3, atol=1e-5)  # a step of float16


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_training_starts_from_weights_with_their_settings_and_patients(bundle, trained, patients, tmp_path):
    start = trained(bundle) / "models"
    given = {"cohort": "brats2023_gli", "start_from": start, "learning_rate": STILL}
    done = training(bundle, patients("brats2023_gli"), tmp_path, **given)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(parameters(tmp_path / "models"), parameters(start))
    before, now = settings_of(str(start)), settings_of(str(tmp_path / "models"))
    assert now["cohort"] == "brats2023_gli" and now["patch_size"] == before["patch_size"] == [32, 32, 32]
    assert now["trained_on"] == ["brats2021", "brats2023_gli"] and before["seen"]
    for name, (low, high) in before["seen"].items():
        assert now["seen"][name][0] <= low and high <= now["seen"][name][1]
    assert now["seen"] != before["seen"]
    used, now_used = recorded_patients(start / "patients.json"), recorded_patients(tmp_path / "models/patients.json")
    assert {*used["train"], *used["validate"]} < {*now_used["train"]}
    assert any(each.startswith("BraTS-GLI") for each in now_used["train"])


def test_cases_are_compared_with_the_training_of_the_weights_that_are_scored(trained, tmp_path, at_the_root):
    """In a fold of a cross-validation these are not the weights that the fold started from."""
    parser = merged(f"bundles/{BUNDLES[0]}/args.yaml")
    ranges, names = {"brain volume, ml": [900, 1100]}, ["brats2018", "brats2021"]
    save_json({"seen": ranges, "trained_on": names}, tmp_path / "settings.json")
    parser.update({"uses_weights": False, "start_from": str(trained(BUNDLES[0]) / "models")})
    parser["evaluate::checkpoint"] = str(tmp_path / "model.pt")
    assert parser.get_parsed_content("evaluate::dataset::seen") == ranges
    assert parser.get_parsed_content("evaluate::cases::trained_on") == names


def test_a_stopped_training_resumes_from_its_own_weights(trained, patients, tmp_path):
    given = {"start_from": trained(BUNDLES[0]) / "models", "learning_rate": 0.01, "keep": "last"}
    assert training(BUNDLES[0], patients("brats2021"), tmp_path, **given).returncode == 0
    first = parameters(tmp_path / "models")
    done = training(BUNDLES[0], patients("brats2021"), tmp_path, **given | {"epochs": 2, "learning_rate": STILL})
    assert done.returncode == 0 and "resuming from" in done.stdout
    assert_equal(parameters(tmp_path / "models"), first)
    with pytest.raises(AssertionError):  # it learned something
        assert_equal(first, parameters(given["start_from"]))


def test_a_stopped_training_that_would_start_from_other_weights_is_refused(trained, patients, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(trained(BUNDLES[0]) / "models", start)
    assert training(BUNDLES[0], patients("brats2021"), tmp_path, start_from=start).returncode == 0
    weights = torch.load(start / "model.pt", weights_only=True)
    torch.save({name: value + 1 for name, value in weights.items()}, start / "model.pt")
    done = training(BUNDLES[0], patients("brats2021"), tmp_path, start_from=start, epochs=2)
    assert done.returncode != 0 and "started from other weights, or from random ones" in done.stderr
    alike = {name: settings_of(str(start))[name] for name in ("patch_size", "window")}
    done = training(BUNDLES[0], patients("brats2021"), tmp_path, epochs=2, **alike)
    assert done.returncode != 0 and "set start_from back. Give another --ckpt_dir" in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": "full"}, "leave --size out and give --start_from"),
        ({"cohort": "brats2024_gli"}, "cohort brats2024_gli means the outputs TC, WT, ET, RC"),
        ({"start_from": "nowhere"}, "'nowhere/model.pt' does not exist"),
        ({"ensemble": True}, "which cannot be trained further; give the folder of one of its members (unet3d) as"),
        ({"same": True}, "start_from and ckpt_dir are both"),
    ],
    ids=["size", "cohort", "missing", "ensemble", "same"],
)
def test_weights_that_do_not_fit_are_refused(options, sentence, trained, patients, tmp_path):
    start = trained(BUNDLES[0]) / "models"
    if options.get("ensemble"):
        options = {"start_from": ensemble_of(tmp_path, "unet3d", "unet3d").parent}
    given = {"start_from": start, **({"ckpt_dir": start} if options.get("same") else options)}
    data = patients(options.get("cohort", "brats2021").replace("2024", "2023"))  # whose files are named alike
    done = training(BUNDLES[0], data, tmp_path, **given)
    assert done.returncode in (1, 2) and sentence in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "results" / "check.csv").exists()  # reading all cases may take an hour


def test_a_larger_patch_than_that_of_the_weights_may_be_given(trained, patients, tmp_path):
    given = {"start_from": trained(BUNDLES[0]) / "models", "patch_size": [48, 32, 32], "learning_rate": STILL}
    assert training(BUNDLES[0], patients("brats2021"), tmp_path, **given).returncode == 0
    assert_equal(parameters(tmp_path / "models"), parameters(given["start_from"]))


class Usable:
    """Parts of which only the test part is known."""

    class parts:
        cohort = COHORTS["brats2021"]

    def __init__(self, test):
        self.test = test


def case(patient):
    return Case(f"{patient}_1", patient, (), ())


@pytest.mark.parametrize(("keep", "test"), [("best", ["t1"]), ("last", ["t1", "v1"])])
def test_patients_of_the_weights_count_as_trained_on_whatever_their_part_is(keep, test, tmp_path, caplog):
    record = {"train": ["a", "v2_1", "t2"], "validate": ["b"], "test": ["t1"]}  # v2 by another cohort
    (tmp_path / "patients.json").write_text(json.dumps(record))
    parts = {name: [case(f"{name[0]}{n}") for n in (1, 2)] for name in ("train", "validate", "test")}
    parts["train"] = [case("n")]
    used = patients_of(parts["train"], parts["validate"], Usable(parts["test"]), keep, str(tmp_path))
    assert used["train"] == ["a", "b", "n", "t2", "v2", "v2_1"] and used["test"] == test
    assert "1 of 2 patients for validation, e.g. v2, are among those of" in caplog.text
    fresh = patients_of(parts["train"], parts["validate"], Usable(parts["test"]), keep)
    assert fresh["train"] == ["n"] and "t2" in fresh["test"]


@pytest.mark.parametrize(
    ("trained", "trained_on", "warned"),
    [
        ("x", ["brats2018"], True),
        ("x", ["brats2021"], False),
        ("n", ["brats2018"], False),
        ("n", ["brats2018", "brats2021"], True),
    ],
)
def test_a_training_warns_that_the_patients_of_the_weights_may_have_other_ids(
    trained, trained_on, warned, tmp_path, caplog
):
    """2023 contains most patients of 2021, so a test on them would be on patients that the weights were trained on."""
    (tmp_path / "patients.json").write_text(json.dumps({"train": [trained], "validate": []}))
    patients_of([case("n")], [case("v")], Usable([case("t")]), "best", str(tmp_path), trained_on)
    warning = "used for training with other ids: the weights were trained on brats2018,"
    assert (warning in caplog.text) == warned


def test_patients_that_are_for_training_anyway_are_not_called_too_good_to_validate_on(tmp_path, caplog):
    """With --fold all the curve of the validation is of patients used for training."""
    (tmp_path / "patients.json").write_text(json.dumps({"train": ["a"], "validate": []}))
    patients_of([case("a"), case("b")], [case("a")], Usable([]), "last", str(tmp_path))
    assert "too good" not in caplog.text
