"""An ensemble is written from folders of weights, and every run takes it."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tumour.errors import InputError, OptionError
from tumour.runs.checkpoints import OF_WEIGHTS

import tools.ensemble as module
from tests.conftest import BUNDLES, ROOT, run, succeed
from tests.members import ensemble_of, member
from tools.ensemble import crossvalidation, ensemble

pytestmark = pytest.mark.usefixtures("at_the_root")


def maps(folder):
    paths = sorted((folder / "results" / "segmentations").glob("*.nii.gz"))
    return {path.name: np.asarray(nib.load(path).dataobj) for path in paths}


def infer(bundle, folder, data, checkpoint, ensemble=True):
    layers = {"+config_file": f"['{checkpoint.parent}/ensemble.yaml']"} if ensemble else {}
    succeed("inferring", bundle, folder, "brats2021", data, ckpt_dir=checkpoint.parent, **layers)
    return maps(folder)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_an_ensemble_of_one_member_segments_as_the_member_does(bundle, patients, tmp_path):
    checkpoint, data = ensemble_of(tmp_path, bundle), patients("brats2021")
    one = infer(bundle, tmp_path / "one", data, tmp_path / "member0" / "model.pt", ensemble=False)
    joint = infer(bundle, tmp_path / "joint", data, checkpoint)
    assert len(one) == 6 and one.keys() == joint.keys()
    assert all(np.array_equal(one[case], joint[case]) for case in one)


def test_networks_of_several_bundles_and_of_one_are_averaged(patients, tmp_path):
    checkpoint, data = ensemble_of(tmp_path, "unet3d", "neuroseg3d", "unet3d"), patients("brats2021")
    settings = json.loads((checkpoint.parent / "settings.json").read_text())
    assert settings["members"] == ["unet3d", "neuroseg3d", "unet3d"] and "fold" not in settings
    weights = torch.load(checkpoint, weights_only=True)
    assert {name.split(".")[1] for name in weights} == {"0", "1", "2"}
    joint = infer("resunet", tmp_path / "joint", data, checkpoint)  # any bundle: the file replaces its network
    first = infer("unet3d", tmp_path / "one", data, tmp_path / "member0" / "model.pt", ensemble=False)
    assert any(not np.array_equal(first[case], joint[case]) for case in joint)


def test_an_ensemble_that_is_stopped_while_it_replaces_another_leaves_no_weights_of_other_patients(
    tmp_path, monkeypatch
):
    checkpoint = ensemble_of(tmp_path, "unet3d", "unet3d")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_json", stop)
    with pytest.raises(KeyboardInterrupt):
        ensemble_of(tmp_path, "unet3d", "unet3d", "unet3d")
    assert not checkpoint.exists()


def test_a_new_ensemble_has_no_scores_and_no_after_treatment_of_the_one_that_it_replaces(tmp_path):
    folder = ensemble_of(tmp_path, "unet3d", "unet3d").parent
    for name in OF_WEIGHTS:
        (folder / name).write_text("{}")
    ensemble_of(tmp_path, "unet3d", "unet3d", "unet3d")
    assert not {*OF_WEIGHTS} & {path.name for path in folder.iterdir()}


def test_a_member_at_the_root_of_a_disk_belongs_to_no_cross_validation():
    assert crossvalidation([Path("/fold0/model.pt"), Path("/fold1/model.pt")]) == {}


def test_an_ensemble_without_its_config_file_is_refused_with_what_to_add(patients, tmp_path):
    checkpoint = ensemble_of(tmp_path, "unet3d", "unet3d")
    done = run("inferring", "unet3d", tmp_path, "brats2021", patients("brats2021"), ckpt_dir=checkpoint.parent)
    assert done.returncode and f"--+config_file \"['{checkpoint.parent}/ensemble.yaml']\"" in done.stderr


def test_members_may_have_started_from_different_weights(tmp_path):
    first, second = (member(tmp_path / name, "unet3d", started_from=name) for name in "ab")
    ensemble(f"{first} {second}", str(tmp_path / "ensemble"))
    assert "started_from" not in json.loads((tmp_path / "ensemble" / "settings.json").read_text())


def test_patients_used_for_training_any_member_and_the_ranges_and_data_sets_of_all_are_recorded(tmp_path):
    first = {"seen": {"brain volume, ml": [900, 1000]}}
    second = {"seen": {"brain volume, ml": [950, 1100]}, "trained_on": ["brats2018", "brats2021"]}
    a = member(tmp_path / "a", "unet3d", 0, train=["p1", "p2"], validate=["p3"], test=["p4", "p5"], **first)
    b = member(tmp_path / "b", "unet3d", 1, train=["p2", "p3"], validate=["p4"], test=["p1", "p5"], **second)
    ensemble(f"{a} {b}", str(tmp_path / "out"))
    recorded = json.loads((tmp_path / "out" / "patients.json").read_text())
    assert recorded == {"train": ["p1", "p2", "p3"], "validate": ["p4"], "test": ["p5"]}
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["seen"] == {"brain volume, ml": [900, 1100]}
    assert settings["trained_on"] == ["brats2021", "brats2018"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("modalities", ["T1ce", "T1", "T2", "FLAIR"]),
        ("spacing", [2, 2, 2]),
        ("head", "classes"),
        ("patch_size", [64] * 3),
    ],
)
def test_members_with_other_settings_are_refused_with_setting_and_values(setting, value, tmp_path):
    a, b = member(tmp_path / "a", "unet3d"), member(tmp_path / "b", "unet3d", 1, **{setting: value})
    with pytest.raises(InputError, match=f"^{setting} is .* in '{a}.* and {re.escape(str(value))} in '{b}.*$"):
        ensemble(f"{a} {b}", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_is_no_member_is_refused(tmp_path):
    a = member(tmp_path / "a", "unet3d")
    nested = ensemble_of(tmp_path / "nested", "unet3d")
    (tmp_path / "bare").mkdir()
    shutil.copy(a / "model.pt", tmp_path / "bare")
    torch.save({"weight": torch.zeros(3)}, member(tmp_path / "strange", "unet3d") / "model.pt")
    torch.save({"network": {}}, member(tmp_path / "training", "unet3d") / "last.ckpt")
    for members, message in {
        f"{a} {tmp_path}/nowhere": "nowhere' is neither a checkpoint nor a folder with a model.pt; correct --members",
        f"{a} {a}/model.pt": "model.pt' is named twice",
        f"{a} {tmp_path}/training/last.ckpt": "is not the state dict of a network",
        f"{a} {tmp_path}/bare": "has no settings.json",
        f"{a} {nested.parent}": "is itself an ensemble",
        f"{a} {tmp_path}/strange": "belongs to none of the bundles",
        "": "members is empty",
        f"'{a}": "a quotation mark is not closed",
    }.items():
        with pytest.raises(InputError, match=message):
            ensemble(members, str(tmp_path / "out"))
    with pytest.raises(OptionError, match="bundle must be one of .* unet3d; it is 'unet'"):
        ensemble(str(a), str(tmp_path / "out"), bundle="unet")
    with pytest.raises(InputError, match="is the folder of a member"):
        ensemble(str(a), str(a))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_a_member_may_have_a_blank(tmp_path):
    spaced, other = (member(tmp_path / name, "unet3d") for name in ("my fold", "other"))
    assert "2 networks" in ensemble(f"'{spaced}/model.pt' {other}", str(tmp_path / "out"))


def test_the_config_file_holds_no_path_of_this_machine(tmp_path):
    text = (ensemble_of(tmp_path, *BUNDLES).parent / "ensemble.yaml").read_text()
    assert str(tmp_path) not in text and str(ROOT) not in text
