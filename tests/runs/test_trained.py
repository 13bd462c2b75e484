"""What gives weights their meaning is recorded next to them, taken from there, and never contradicted."""

import json
import shutil
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from tumour.errors import InputError
from tumour.files import save_json
from tumour.runs.checkpoints import LoadWeights, save_checkpoint
from tumour.runs.trained import COMPARED, RULES, layer_types, require_same_channels, settings_of, settings_to_use
from tumour.scores.tables import read_scores

from tests.cohorts import COHORTS
from tests.conftest import BUNDLES, ROOT, here, run, succeed
from tools.command import run_command
from tools.show import merged

CODE = "$__import__('os').system('touch ran')"
bundles = pytest.mark.parametrize("bundle", BUNDLES)


def short(run_id, bundle, data, folder, **options):
    """A run with no more options than a user needs."""
    options = {"dataset_dir": data, "ckpt_dir": folder / "models", "output_dir": folder / "results", **options}
    return here(run_command(run_id, args_file=f"bundles/{bundle}/args.yaml", **options))


def label_maps(folder):
    return {
        path.name: np.asarray(nib.load(path).dataobj) for path in sorted(folder.glob("results/segmentations/*.nii.gz"))
    }


def refusal(done):
    """The sentence that ends a refused run."""
    sentence = done.stderr.strip().splitlines()[-1]
    assert done.returncode in (1, 2) and sentence.startswith("error: ") and "Traceback" not in done.stderr
    return sentence


@bundles
def test_a_training_records_what_gives_its_weights_their_meaning(bundle, trained):
    record = settings_of(str(trained(bundle) / "models"))
    assert record["cohort"] == "brats2021" and record["modalities"] == ["T1", "T1ce", "T2", "FLAIR"]
    assert (record["size"], record["spacing"], record["resize"]) == ("fast", [1, 1, 1], [])
    assert record["patch_size"] == record["window"] == [32, 32, 32]
    assert (
        record["norm"] == "batch"
        and record["activation"] == "sigmoid"
        and list(record["channels"]) == ["TC", "WT", "ET"]
    )
    assert record["channels"]["TC"] == ["necrotic", "enhancing"]
    assert record["normalisation"] == {"nonzero": True, "channel_wise": True}
    assert {"Conv3d", "BatchNorm3d", "LeakyReLU"} <= set(record["layers"])
    low, high = record["seen"]["brain volume, ml"]  # of the training cases
    assert 0 < low < high < 64 and record["seen"]["voxel side, mm (largest)"] == [1, 1]


def test_weights_segment_and_are_scored_with_the_settings_that_they_were_trained_with(patients, tmp_path):
    """Without one of them among the options, and also with all of them: the label maps are the same."""
    bundle, data = BUNDLES[0], patients("msd")
    trained = {"cohort": "msd", "modalities": ["FLAIR", "T1ce"], "size": "full", "spacing": [2, 2, 2]}
    trained |= {"head": "@heads::classes", "resize": [48, 32, 32], "patch_size": [32, 32, 48]}
    given = {"epochs": 1, "iterations_per_epoch": 1, "workers": 0, "precision": "float32"}
    assert short("training", bundle, data, tmp_path, window=[48, 32, 32], **trained, **given).returncode == 0
    maps = []
    for options in ({}, trained):
        done = short("inferring", bundle, data, tmp_path, precision="float32", **options)
        assert done.returncode == 0, done.stderr[-3000:]
        maps.append(label_maps(tmp_path))
        shutil.rmtree(tmp_path / "results" / "segmentations")
    assert len(maps[0]) == 6 and all(np.array_equal(maps[0][name], maps[1][name]) for name in maps[0])
    for run_id in ("evaluating", "reporting"):
        done = short(run_id, bundle, data, tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]


def test_what_weights_were_trained_with_wins_over_the_defaults_and_a_new_training_has_these(tmp_path):
    save_json(
        {"size": "full", "spacing": [2, 2, 2], "norm": "batch", "patch_size": [64] * 3}, tmp_path / "settings.json"
    )
    defaults = {"size": "fast", "spacing": [1, 1, 1], "resize": []}
    expected = {"size": "full", "spacing": [2, 2, 2], "norm": "batch", "patch_size": [64] * 3, "resize": []}
    assert settings_to_use(defaults, str(tmp_path)) == expected and settings_to_use(defaults, "") == defaults


@bundles
@pytest.mark.parametrize("record", [{"patch_size": [48, 48, 48], "window": [64, 64, 48]}, {"size": "fast"}, None])
def test_the_window_of_weights_is_the_same_on_every_device(bundle, record, tmp_path, monkeypatch):
    """The last two are of version 0.1.0, which used 96³ on a CPU."""
    monkeypatch.chdir(ROOT)
    if record:
        save_json(record, tmp_path / "settings.json")
    windows = []
    for device in ("cpu", "cuda", "mps"):
        parser = merged(f"bundles/{bundle}/args.yaml")
        parser.update({"device": device, "precision": "float32", "uses_weights": True, "ckpt_dir": str(tmp_path)})
        windows.append(list(parser.get_parsed_content("sliding_window").inferer.inferer.roi_size))
    assert windows == [(record or {}).get("window", [96, 96, 96])] * 3


CUT_OFF = {"_target_": "ThresholdIntensityd", "keys": "image", "threshold": 5.0, "above": False, "cval": 5.0}
CONTRADICTIONS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"modalities": ["FLAIR", "T1", "T1ce", "T2"]},
        "modalities is ['FLAIR', 'T1', 'T1ce', 'T2'], but",
        "['T1', 'T1ce'",
    ),
    ({"size": "full"}, "size is full, but", "trained with size fast"),
    ({"spacing": [1, 1, 2]}, "spacing is [1, 1, 2], but", "trained with spacing [1.0, 1.0, 1.0]"),
    ({"resize": [32, 32, 32]}, "resize is [32, 32, 32], but", "trained with resize []"),
    ({"patch_size": [64, 64, 64]}, "patch_size is [64, 64, 64], but", "trained with patch_size [32, 32, 32]"),
    ({"window": [64, 64, 64]}, "window is [64, 64, 64], but", "trained with window [32, 32, 32]"),
    ({"normalisation::nonzero": False}, "normalisation is {'nonzero': False,", "normalisation {'nonzero': True,"),
    ({"load::8::nonzero": False}, "Cases are read differently than", "leave out what changes load, resized or read"),
    ({"load::7::pixdim": [2, 2, 2]}, "now has the shape [12, 8, 8]", "(in training [24, 14, 14])"),
    ({"load::6::axcodes": "LPS"}, "Cases are read differently than", "leave out what changes load"),
    ({"load::3::_disabled_": True}, "Cases are read differently than", "leave out what changes load"),
    ({"resized::0": {"_target_": "RandFlipd", "keys": "image", "prob": 1}}, "Cases are read differently", "leave out"),
    ({"resized::0": CUT_OFF}, "Cases are read differently than", "leave out what changes load, resized or read"),
    ({"head": "@heads::classes"}, "background, necrotic, oedema, enhancing (softmax)", "TC, WT, ET (sigmoid)"),
    ({"cohort": "brats2024_gli"}, "cohort brats2024_gli means the outputs TC, WT, ET, RC", "brats2018, brats2020,"),
    ({"network_def::network::act_name": "relu"}, "LeakyReLU only in training", "--network_def"),
]


@pytest.mark.parametrize(("options", "now", "before"), CONTRADICTIONS, ids=[next(iter(c[0])) for c in CONTRADICTIONS])
def test_an_option_that_contradicts_the_record_is_refused_with_both_values(
    options, now, before, patients, trained, tmp_path
):
    folder = trained(BUNDLES[0])
    data = patients(options.get("cohort", "brats2021").replace("2024", "2023"))  # whose files are named alike
    options = {"output_dir": tmp_path / "results", "ckpt_dir": folder / "models", **options}
    sentence = refusal(short("inferring", BUNDLES[0], data, tmp_path, **options))
    assert now in sentence and before in sentence and str(folder / "models") in sentence
    assert not (tmp_path / "results" / "segmentations").exists()


@pytest.mark.parametrize("run_id", ["evaluating", "fitting"])
def test_scoring_and_fitting_refuse_what_segmenting_refuses(run_id, patients, trained, tmp_path):
    options = {"ckpt_dir": trained(BUNDLES[0]) / "models", "spacing": [1, 1, 2]}
    assert "spacing is [1, 1, 2], but" in refusal(short(run_id, BUNDLES[0], patients("brats2021"), tmp_path, **options))


@bundles
def test_shipped_weights_with_a_cohort_of_other_regions_are_refused_with_the_cohorts_that_fit(
    bundle, patients, tmp_path
):
    folder = ROOT / "bundles" / bundle / "weights"
    options = {"cohort": "brats2024_gli", "ckpt_dir": folder}
    sentence = refusal(short("inferring", bundle, patients("brats2023_gli"), tmp_path, **options))
    fitting = [name for name, cohort in COHORTS.items() if cohort.regions == COHORTS["brats2021"].regions]
    assert f"give one of the cohorts that fit: {', '.join(fitting)}." in sentence and "size" not in sentence


def test_what_was_not_recorded_may_be_given(patients, trained, tmp_path):
    shutil.copytree(trained(BUNDLES[0]) / "models", tmp_path / "models")
    save_json({"cohort": "brats2021", "norm": "batch"}, tmp_path / "models/settings.json")
    succeed("inferring", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), patch_size=[48, 48, 48])


def test_weights_without_a_record_are_used_with_a_warning(tmp_path, caplog):
    network = torch.nn.Linear(2, 1)
    save_checkpoint(network.state_dict(), tmp_path / "model.pt")
    now = dict.fromkeys(COMPARED) | {"cohort": "brats2021", "activation": "sigmoid", "channels": {}}
    load = LoadWeights(str(tmp_path / "model.pt"), network, now, COHORTS)
    load.load(None)
    assert "there is no settings.json next to it to compare size, modalities, " in caplog.text
    caplog.clear()
    save_json({"cohort": "brats2021"}, tmp_path / "settings.json")
    load.load(None)
    assert "settings.json" not in caplog.text


def test_weights_outside_ckpt_dir_are_compared_with_their_own_record(patients, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained(BUNDLES[0]) / "models", other)
    save_json({**settings_of(str(other)), "spacing": [2, 2, 2]}, other / "settings.json")
    options = {"evaluate::checkpoint": other / "model.pt", "test_share": 1.0}
    sentence = refusal(run("evaluating", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **options))
    assert "spacing is [1.0, 1.0, 1.0]" in sentence and f"--ckpt_dir '{other}'" in sentence


def test_weights_outside_ckpt_dir_are_not_scored_on_their_own_training_patients(patients, trained, tmp_path):
    other = trained(BUNDLES[0]) / "models"
    record = json.loads((other / "patients.json").read_text())
    save_json({**record, "train": [], "validate": []}, tmp_path / "models" / "patients.json")
    save_json(settings_of(str(other)), tmp_path / "models" / "settings.json")
    shutil.copytree(other, tmp_path / "other")
    options = {"evaluate::checkpoint": tmp_path / "other" / "model.pt", "test_share": 1.0}
    printed = succeed("evaluating", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **options)
    scored = {*read_scores(tmp_path / "results" / "scores" / "scores.csv")["case"]}
    assert scored == {*record["test"]} and "were used for training or model selection" in printed


def test_the_record_of_another_network_is_refused(patients, trained, tmp_path):
    shutil.copytree(trained("neuroseg3d") / "models", tmp_path / "models")
    shutil.copy(trained("unet3d") / "models" / "settings.json", tmp_path / "models")
    sentence = refusal(run("inferring", "neuroseg3d", tmp_path, "brats2021", patients("brats2021")))
    assert "network_def differs" in sentence and "give the bundle" in sentence


def test_a_training_takes_nothing_from_the_record_in_its_folder(patients, tmp_path):
    (tmp_path / "models").mkdir()
    for text in ('{"size": "full", "spacing": [2, 2, 2], "activation": "softmax"}', "{broken"):
        (tmp_path / "models" / "settings.json").write_text(text)
        options = {"epochs": 1, "iterations_per_epoch": 1, "resume": False}
        succeed("training", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **options)
        record = settings_of(str(tmp_path / "models"))
        assert (record["size"], record["spacing"], record["activation"]) == ("fast", [1, 1, 1], "sigmoid")


DAMAGED = [
    '{"reading": {"shape": [1]}}',
    '{"reading": {"shape": [1], "means": ["1"]}}',
    "{broken",
    "[1]",
    "\xff",
    '{"channels": ["TC"]}',
    '{"layers": [[]]}',
]
DAMAGED += ['{"seen": [1, 2]}', '{"seen": {"brain volume, ml": [900]}}', '{"seen": {"brain volume, ml": ["$(1)", 2]}}']
DAMAGED += [
    json.dumps({name: value})
    for name, values in {
        "cohort": [1, None],
        "size": [["fast"]],
        "modalities": ["T1", [], [1]],
        "activation": ["tanh"],
        "spacing": [1, [1, 1], [1, 1, 0], ["1", "1", "1"]],
        "resize": [None, [1.5]],
        "patch_size": [64, [64.5] * 3],
        "window": [CODE, [64, 64]],
        "modality_dropout": [2, "0.1"],
    }.items()
    for value in values
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_record_is_refused_with_its_path(text, tmp_path):
    (tmp_path / "settings.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=str(tmp_path / "settings.json")):
        settings_to_use({}, str(tmp_path))


def test_a_run_with_a_damaged_record_ends_before_any_work_with_one_sentence(patients, trained, tmp_path):
    shutil.copytree(trained(BUNDLES[0]) / "models", tmp_path / "models")
    (tmp_path / "models" / "settings.json").write_text('{"spacing": 2}')
    done = short("inferring", BUNDLES[0], patients("brats2021"), tmp_path)
    assert "spacing in" in refusal(done) and "settings.json" in refusal(done) and "running on" not in done.stdout


def test_a_record_cannot_run_code(patients, trained, tmp_path, monkeypatch):
    shutil.copytree(trained(BUNDLES[0]) / "models", tmp_path / "models")
    for name, value in {"size": CODE, "cohort": CODE, "modalities": ["T1", CODE], "resize": [], "seed": CODE}.items():
        record = {**settings_of(str(trained(BUNDLES[0]) / "models")), name: value}
        save_json(record, tmp_path / "models" / "settings.json")
        short("inferring", BUNDLES[0], patients("brats2021"), tmp_path)
    assert not (ROOT / "ran").exists()


def test_the_ranges_of_a_record_are_those_of_the_settings():
    settings = yaml.safe_load((ROOT / "bundles/common/settings.yaml").read_text())["settings"]
    for name in RULES.keys() - {"activation"}:
        assert RULES[name] == {key: value for key, value in settings[name].items() if key != "by"}


def test_outputs_in_another_order_are_refused_and_names_of_data_sets_do_not_matter():
    head = {"activation": "sigmoid", "channels": {"TC": ["necrotic"], "WT": ["necrotic", "oedema"]}}
    now = {**head, "cohort": "brats2021"}
    require_same_channels({**head, "cohort": "brats2018"}, now, COHORTS, ROOT)
    turned = {**head, "channels": dict(reversed(head["channels"].items()))}
    with pytest.raises(InputError, match="trained for WT, TC"):
        require_same_channels(turned, now, COHORTS, ROOT)


def test_dropout_is_no_difference_between_networks():
    layers = [torch.nn.Conv2d(1, 1, 1), torch.nn.ReLU()]
    assert layer_types(torch.nn.Sequential(*layers, torch.nn.Dropout2d())) == layer_types(torch.nn.Sequential(*layers))
