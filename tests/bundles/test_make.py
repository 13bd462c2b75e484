"""The commands that make prints are command lines that a shell and MONAI understand."""

import ast
import os
import shlex
import subprocess

import pytest
from monai.bundle import ConfigParser
from tumour.runs.layers import layers, parse_options

from tests.conftest import BUNDLES, ROOT

ON_DEVICE = "bundles/common/augment_on_device.yaml"


def words(target, **variables):
    """The last command of a target as a shell splits it, also when `make test` runs this test."""
    given = [f"{name}={value}" for name, value in {"DATA": "the/folder", **variables}.items()]
    command = ["make", "--dry-run", "--assume-old=.venv/ready", target, *given]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    printed = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=True).stdout
    line = printed.strip().splitlines()[-1]
    shown = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], cwd=ROOT, capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()


def option(line, name):
    return line[line.index(f"--{name}") + 1]


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize(
    ("target", "run_id"), [("train", "training"), ("evaluate", "evaluating"), ("infer", "inferring")]
)
def test_make_runs_a_bundle(bundle, target, run_id):
    line = words(target, BUNDLE=bundle, COHORT="msd", ARGS="--epochs 3")
    assert line[1:5] == ["-m", "monai.bundle", "run", run_id] and line[-2:] == ["--epochs", "3"]
    assert option(line, "args_file") == f"bundles/{bundle}/args.yaml"
    assert (option(line, "cohort"), option(line, "dataset_dir")) == ("msd", "the/folder")


def test_a_recipe_is_merged_on_top_of_the_bundle_and_sets_the_cohort_unless_the_user_does():
    line = words("train", BUNDLE="resunet", RECIPE="metastases_brats2024")
    assert option(line, "args_file") == "bundles/resunet/args.yaml" and "--cohort" not in line
    assert ast.literal_eval(option(line, "+config_file")) == ["bundles/common/recipes/metastases_brats2024.yaml"]
    assert option(words("train", RECIPE="metastases_brats2024", COHORT="brats2021"), "cohort") == "brats2021"


@pytest.mark.parametrize(
    ("target", "overlay"),
    [("train", "multi_gpu_train"), ("evaluate", "multi_gpu_evaluate"), ("infer", "multi_gpu_infer")],
)
@pytest.mark.parametrize("recipe", ["", "metastases_brats2024"])
def test_several_devices_add_one_config_file_with_and_without_a_recipe(target, overlay, recipe, monkeypatch):
    line = words(target, BUNDLE="unet3d", DEVICES="2", RECIPE=recipe)
    assert "torch.distributed.run" in line and "--nproc_per_node=2" in line
    monkeypatch.chdir(ROOT)
    files, _ = layers(parse_options(line[line.index("run") + 1 :]))
    own = ConfigParser.load_config_file("bundles/unet3d/args.yaml")["config_file"]
    on_top = [f"bundles/common/recipes/{recipe}.yaml"] if recipe else []
    assert files == [*own, *on_top, f"bundles/common/{overlay}.yaml"]


def test_augmentation_on_the_device_adds_its_config_file_before_that_for_several_devices():
    alone, several = (words("train", AUGMENT="device", **others) for others in ({}, {"DEVICES": "2"}))
    assert ast.literal_eval(option(alone, "+config_file")) == [ON_DEVICE]
    assert ast.literal_eval(option(several, "+config_file")) == [ON_DEVICE, "bundles/common/multi_gpu_train.yaml"]


@pytest.mark.parametrize("folder", ["my  folds/joint", "/home/o'neil", "$HOME", "a`b`", "a(b)", "Köln"])
@pytest.mark.parametrize("target", ["evaluate", "infer"])
def test_an_ensemble_adds_its_config_file_and_its_folder(target, folder):
    line = words(target, ENSEMBLE=folder, DEVICES="2")
    own = f"bundles/common/multi_gpu_{target}.yaml"
    assert ast.literal_eval(option(line, "+config_file")) == [f"{folder}/ensemble.yaml", own]
    assert option(line, "ckpt_dir") == folder


@pytest.mark.parametrize("target", ["train", "crossvalidate", "final", "best"])
@pytest.mark.parametrize("cohort", ["", "brats2021"])
def test_a_recipe_sets_the_cohort_of_every_training_unless_the_user_does(target, cohort):
    line = words(target, RECIPE="metastases_brats2024", **({"COHORT": cohort} if cohort else {}))
    assert (option(line, "cohort") if "--cohort" in line else "") == cohort


@pytest.mark.parametrize(
    "target",
    "demo data check report watch table compare ablation recipes crossvalidate final best ensemble".split()
    + "prepare segment release verify export show".split(),
)
def test_every_other_target_is_a_valid_shell_command(target):
    assert shlex.split(" ".join(words(target)))


@pytest.mark.parametrize("folder", ["my data", "a(b)", 'say "x"', "it's", "a&b;c", "$HOME", "a`b`", "Köln"])
@pytest.mark.parametrize("target", ["train", "check", "compare", "recipes", "crossvalidate", "final", "best"])
def test_a_folder_may_be_called_what_you_like(target, folder):
    assert option(words(target, DATA=folder), "dataset_dir") == folder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("EPOCHS=50", "There is no variable EPOCHS; a setting of a run goes into ARGS"),
        ("ARG=--epochs 50", "There is no variable ARG;"),
        ("data=scans", "There is no variable data;"),
        ("BUNDLE=resnet", "BUNDLE is 'resnet'; it must be one of attention_unet neuroseg3d resunet unet3d."),
        ("BUNDLE=unet3d resunet", "BUNDLE is 'unet3d resunet'"),
        ("BUNDLE=", "BUNDLE is ''"),
        ("RECIPE=brats2021", "RECIPE is 'brats2021'; it must be one of attention_dropout_brats2020"),
        ("DEVICES=two", "DEVICES is 'two'; it must be a whole number of 1 or more"),
        ("DEVICES=0", "DEVICES is '0'"),
        ('ENSEMBLE=a"b', "ENSEMBLE is 'a\"b'; a folder with \" or \\ cannot be given"),
    ],
)
def test_a_misspelt_variable_or_name_is_refused_before_anything_is_run(given, message):
    command = ["make", "--dry-run", "--assume-old=.venv/ready", "train", given]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and not done.stdout


def test_a_benchmark_that_was_stopped_does_not_go_on_with_other_data():
    stamps = {
        words("benchmark", DATA=data, COHORT=cohort)[-1] for data in ("a", "b's") for cohort in ("msd", "brats2018")
    }
    assert len(stamps) == 4 and {words("benchmark", DATA="a", COHORT="msd")[-1]} < stamps


@pytest.mark.parametrize(("target", "run_id"), [("prepare", "preparing"), ("segment", "segmenting")])
def test_raw_scans_are_prepared_next_to_the_results(target, run_id):
    line = words(target, SCANS="my scans", OUT="my results", ARGS="--ckpt_dir weights")
    assert line[3:5] == ["run", run_id] and line[-2:] == ["--ckpt_dir", "weights"]
    given = [option(line, name) for name in ("scans_dir", "dataset_dir", "output_dir")]
    assert given == ["my scans", "my results/prepared", "my results"]
