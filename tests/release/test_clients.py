"""Programs that use bundles: each can use a release without changes.

MONAI Label, MONAI Deploy and NVFlare need separate environments; give their interpreters in MONAI_LABEL_PYTHON,
MONAI_DEPLOY_PYTHON and NVFLARE_PYTHON.
"""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tumour.cases.find import find_cases

from tests.cohorts import COHORTS, FOUR
from tests.conftest import BUNDLES, ROOT
from tests.documents import blocks
from tests.home import Home
from tests.members import ensemble_of, member
from tools.release.verify import TINY, TRAINING
from tools.show import merged

CLIENTS = ROOT / "tests" / "clients"
COHORT = "brats2021"
ROUNDS = """
import json, sys
home, train, evaluate = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject
algo = MonaiAlgo(home, local_epochs=1, train_kwargs=train, eval_kwargs=evaluate)
algo.initialize({"CLIENT_NAME": "site-1"})
weights = {name: value.clone() for name, value in algo.trainer.network.state_dict().items()}
for sent in (weights, {name: value + 0.5 for name, value in weights.items()}):
    algo.train(ExchangeObject(weights=sent))
    moved = algo.get_weights().weights
    learnt = {name: value for name, value in moved.items() if ".running_" not in name and "num_batches" not in name}
    assert moved.keys() == weights.keys() and not any(value.any() for value in learnt.values()), "not the weights sent"
metrics = algo.evaluate(ExchangeObject(weights=weights)).metrics
assert {"dice", "dice_TC", "dice_WT", "dice_ET"} <= set(metrics), metrics
print(algo.trainer.state.epoch, "rounds")
algo.finalize()
"""


def interpreter(variable, what):
    """The Python interpreter in an environment variable, or a skip that explains how to get one."""
    if variable not in os.environ:
        pytest.skip(f"{variable} does not name an interpreter with {what}")
    return os.environ[variable]


@pytest.fixture(params=[["neuroseg3d"], ["neuroseg3d", "unet3d"]], ids=["network", "ensemble"])
def weights(request, tmp_path, monkeypatch):
    """A checkpoint of a network or of an ensemble, whose label maps contain every class."""
    monkeypatch.chdir(ROOT)
    if len(request.param) > 1:
        return ensemble_of(tmp_path / "members", *request.param)
    return member(tmp_path / "weights", *request.param) / "model.pt"


def four_dimensional(patients, folder):
    """The study that docs/sharing.md makes of prepared patients, and their labels where MONAI Label stores them."""
    (folder / "results").mkdir()
    (folder / "results" / "prepared").symlink_to(patients)
    with contextlib.chdir(folder):
        exec(blocks(ROOT / "docs" / "sharing.md", "python")[0], {})
    study = folder / "results" / "study"
    (study / "labels" / "final").mkdir(parents=True)
    for case in find_cases(str(patients), COHORTS[COHORT], FOUR).complete:
        shutil.copy(case.label, study / "labels" / "final" / f"{case.name}.nii.gz")
    return study


@pytest.fixture
def scan(twelve, tmp_path):
    """The id of a case, and its four scans as one 4-D file."""
    path = next(four_dimensional(twelve, tmp_path).glob("*.nii.gz"))
    return path.name.removesuffix(".nii.gz"), path


def test_monai_algo_trains_two_rounds_from_the_weights_that_the_server_sent(weights, twelve, tmp_path):
    """With a learning rate of zero, the same weights come back: no checkpoint of an earlier round is used instead."""
    home = Home("neuroseg3d", sys.executable, tmp_path, twelve, weights)
    given = TINY | {"dataset_dir": str(twelve), "bundle_root": str(home.folder)}
    train = given | TRAINING | {"learning_rate": 0.0, "resume": True}
    assert "2 rounds" in home.python_runs("-c", ROUNDS, home.folder, json.dumps(train), json.dumps(given))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_client_passes_a_4d_scan_and_gets_the_label_map_in_memory(bundle, scan, tmp_path, monkeypatch):
    """As MONAI Label does: the device is a string, the item has more entries than the image, and nothing is written."""
    monkeypatch.chdir(ROOT)
    parser = merged(f"bundles/{bundle}/args.yaml")
    parser.update({"device": "cpu", "output_dir": str(tmp_path / "eval"), "patch_size": [32, 32, 32]})
    item = parser.get_parsed_content("preprocessing")({"image": str(scan[1]), "image_path": str(scan[1])})
    with torch.no_grad():
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], parser.get_parsed_content("network"))[
            0
        ]
    label = parser.get_parsed_content("postprocessing")(item)["pred"]
    assert label.shape == (1, 40, 40, 40) and label.dtype == torch.uint8
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize(
    ("script", "variable", "what", "success"),
    [
        ("label.py", "MONAI_LABEL_PYTHON", "monailabel==0.8.6", "'enhancing tumour': 4"),
        ("deploy.py", "MONAI_DEPLOY_PYTHON", "monai-deploy-app-sdk==4.0.0", "the same map"),
    ],
)
def test_a_client_makes_the_same_label_map_as_the_bundle(
    script, variable, what, success, scan, twelve, weights, tmp_path
):
    python = interpreter(variable, what)
    case, path = scan
    home = Home("neuroseg3d", sys.executable, tmp_path, twelve, weights)
    home.python_runs(*"-m monai.bundle run --config_file configs/inference.json --dataset_dir".split(), twelve)
    home.python = python
    expected = home.folder / "eval" / "segmentations" / f"{case}.nii.gz"
    assert success in home.python_runs(CLIENTS / script, home.folder, path, expected, cwd=tmp_path)


def test_a_client_passes_scans_and_labels_for_training_and_no_folder(twelve, tmp_path):
    """As MONAI Label does; the earlier weights stay in use until there is a better network."""
    home = Home("neuroseg3d", sys.executable, tmp_path, "")
    study = four_dimensional(twelve, tmp_path)
    items = [{"image": str(path), "label": str(study / "labels/final" / path.name)} for path in study.glob("*.nii.gz")]
    given = {"train::dataset::data": items[:3], "validate::dataset::data": items[3:5], "device": "cpu"}
    for _ in range(2):
        assert "epoch 2/2" in home.run(["run"], "train", **given, **TRAINING | {"epochs": 2, "resume": True})
    assert not list((home.folder / "models").glob("before-[0-9]"))
    patients = json.loads((home.folder / "models" / "patients.json").read_text())
    named = sorted(Path(item["image"]).name.removesuffix(".nii.gz") for item in items[:3])
    assert patients["train"] == named and len(patients["validate"]) == 2 and patients["test"] == []


def test_monai_label_trains_a_release_and_segments_with_the_result(twelve, tmp_path):
    """Its folder has 4-D scans, and labels below labels/final; it gives no dataset_dir and splits the cases itself."""
    home = Home("neuroseg3d", interpreter("MONAI_LABEL_PYTHON", "monailabel==0.8.6"), tmp_path, twelve)
    study = four_dimensional(twelve, tmp_path)
    config = home.folder / "configs" / "train.json"
    tiny = TINY | {"patch_size": [32, 32, 32], "iterations_per_epoch": 2, "val_interval": 1}
    config.write_text(json.dumps(json.loads(config.read_text()) | tiny))
    printed = home.python_runs(CLIENTS / "label_train.py", home.folder, study, cwd=tmp_path)
    assert "trained twice, segmented" in printed and "'enhancing tumour': 4" in printed
    patients = json.loads((home.folder / "models" / "patients.json").read_text())
    assert (len(patients["train"]), len(patients["validate"]), patients["test"]) == (9, 3, [])
    assert set(patients["train"]) | set(patients["validate"]) == {path.name[:-7] for path in study.glob("*.nii.gz")}


def test_nvflare_aggregates_two_rounds_of_two_sites(twelve, tmp_path):
    python = interpreter("NVFLARE_PYTHON", "nvflare==2.9.0, monai-nvflare==0.4.0 and the packages of the metadata")
    home = Home("neuroseg3d", python, tmp_path, twelve)
    printed = home.python_runs(CLIENTS / "nvflare_job.py", home.folder, twelve, tmp_path)
    assert printed.count("aggregating 2 update(s)") == 2 and "Round 1 finished" in printed


def test_a_release_is_prepared_for_hugging_face_with_its_card(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from monai.bundle import push_to_hf_hub

    asked = []
    for name in ("create_repo", "upload_folder", "create_tag"):
        monkeypatch.setattr(hub.HfApi, name, lambda self, name=name, **given: asked.append((name, given)))
    home = Home("neuroseg3d", sys.executable, tmp_path, None)
    push_to_hf_hub("someone/neuroseg3d", "neuroseg3d", str(home.folder.parent), version="0.1.0")
    assert [name for name, _ in asked] == ["create_repo", "upload_folder", "create_tag"]
    card = (home.folder / "README.md").read_text()
    assert card.startswith("---\ntags:\n- monai") and "license: apache-2.0" in card and "# Model Overview" in card
