"""A training that is stopped anywhere and resumed equals one that was never stopped: the same files, byte for byte."""

import hashlib
import os
import random
import shutil
import signal
import time

import pandas as pd
import pytest
from tumour.runs.checkpoints import read_checkpoint

from tests.conftest import BUNDLES, arguments, here

TINY = {
    "iterations_per_epoch": 3,
    "val_interval": 2,
    "warmup": 2,
    "sizes::fast::filters": [4, 4, 4, 8, 8],
    "network_def::network::dropout": 0.2,
}
FILES = ("model.pt", "last.ckpt", "before-last.ckpt", "patients.json", "settings.json")


def start(folder, data, epochs, **settings):
    """Train in a child of this process, which has imported everything already; its process number."""
    words = arguments("training", BUNDLES[0], folder, "brats2021", data, epochs=epochs, **TINY | settings)
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()  # its workers are stopped with it, as on Ctrl-C
        done = here(words)
        with open(folder / "log", "a") as log:
            log.write(f"{done.stdout}{done.stderr}\n")
        status = done.returncode
    finally:
        os._exit(status)


def finish(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(folder, *args, **settings):
    folder.mkdir(exist_ok=True)
    assert finish(start(folder, *args, **settings)) == 0, (folder / "log").read_text()
    return folder


def table(folder):
    return pd.read_csv(folder / "results" / "training.csv").drop(columns="seconds")


def results(folder):
    """What a training leaves: the hashes of its files, and its table without the seconds."""
    hashes = {name: hashlib.sha256((folder / "models" / name).read_bytes()).hexdigest() for name in FILES}
    return hashes | {"table": table(folder).to_csv()}


def wait_for_the_first_epoch(folder, child):
    """Wait until a training that was just started has loaded its checkpoint and trains."""
    record, before = folder / "results" / "runs" / "training.json", time.time_ns()
    while not record.exists() or record.stat().st_mtime_ns < before:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), (folder / "log").read_text()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(patients, tmp_path_factory):
    """Folder of a training without a stop; workers have one thread each, so their number may change the rounding."""
    folders = {}

    def folder(epochs, workers=0):
        if (epochs, workers) not in folders:
            new = tmp_path_factory.mktemp("uninterrupted")
            folders[epochs, workers] = train(new, patients("brats2021"), epochs, workers=workers)
        return folders[epochs, workers]

    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("stops", "epochs"), [("KILL TERM INT", 12), pytest.param("KILL " * 60, 60, marks=pytest.mark.slow)]
)
def test_a_training_stopped_at_random_moments_leaves_the_same_files(
    stops, epochs, workers, uninterrupted, patients, tmp_path
):
    expected, moments, stopped = results(uninterrupted(epochs, workers)), random.Random(workers), []
    for name in stops.split():
        child = start(tmp_path, patients("brats2021"), epochs, workers=workers)
        wait_for_the_first_epoch(tmp_path, child)
        time.sleep(moments.uniform(0, 0.5))
        os.killpg(child, signal.Signals[f"SIG{name}"])
        stopped.append(finish(child))
    assert {*stopped} <= {-9, 143, 130, -15, 0}, (tmp_path / "log").read_text()  # the last two: just after its end
    assert stopped[0] == -9
    train(tmp_path, patients("brats2021"), epochs, workers=workers)
    assert results(tmp_path) == expected
    assert not list(tmp_path.glob("**/.*"))


def test_patches_augmented_on_the_device_are_the_same_in_a_resumed_training_with_other_workers(patients, tmp_path):
    layer = {"+config_file": ["bundles/common/augment_on_device.yaml"], "lr_scheduler::t_total": 12}
    whole = train(tmp_path / "whole", patients("brats2021"), 4, **layer)
    for epochs, workers in ((2, 2), (4, 0)):
        resumed = train(tmp_path / "resumed", patients("brats2021"), epochs, workers=workers, **layer)
    assert results(resumed) == results(whole)


def test_the_same_command_twice_gives_the_same_files_in_bfloat16(patients, tmp_path):
    settings = {"precision": "bfloat16", "patch_size": [48, 48, 48]}
    one, other = (train(tmp_path / name, patients("brats2021"), 2, **settings) for name in ("one", "other"))
    assert results(one) == results(other)


def continued(uninterrupted, data, tmp_path, epochs, **settings):
    """A training of two epochs, continued with other settings."""
    shutil.copytree(uninterrupted(2), tmp_path, dirs_exist_ok=True)
    return train(tmp_path, data, epochs, **settings)


def test_more_epochs_follow_the_schedule_of_the_new_length(uninterrupted, patients, tmp_path):
    longer = table(continued(uninterrupted, patients("brats2021"), tmp_path, 6))
    assert longer["epoch"].tolist() == list(range(1, 7))
    rates, fresh = longer["learning_rate"].tolist(), table(uninterrupted(6))["learning_rate"].tolist()
    assert rates[2:] == fresh[2:] == sorted(fresh[2:], reverse=True) and rates[1] == rates[5] == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 0.001, "weight_decay": 0.5, "warmup": 0, "val_interval": 1, "patience": 3},
        {"batch_size": 1, "patch_size": [48, 48, 48], "overlap": 0.5, "max_gradient_norm": 1},
        {"loss": "@losses::dice", "precision": "bfloat16", "cache": "none", "workers": 1},
    ],
)
def test_other_settings_are_used_from_the_next_epoch_on(changed, uninterrupted, patients, tmp_path):
    folder = continued(uninterrupted, patients("brats2021"), tmp_path, 4, **changed)
    assert table(folder)["epoch"].tolist() == [1, 2, 3, 4]
    assert table(folder)["loss"][2:].tolist() != table(uninterrupted(6))["loss"][2:4].tolist()
    saved = read_checkpoint(folder / "models" / "last.ckpt")
    (group,) = saved["optimizer"]["param_groups"]
    assert group["initial_lr"] == changed.get("learning_rate", 0.003)
    assert group["weight_decay"] == changed.get("weight_decay", 0.01)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"iterations_per_epoch": 5}, "iterations_per_epoch = 3, but iterations_per_epoch is now 5; set it back."),
        ({"seed": 1}, "seed = 0, but seed is now 1; set it back."),
        ({"spacing": [1, 1, 2]}, "spacing = [1.0, 1.0, 1.0], but spacing is now [1, 1, 2]; set it back."),
        ({"optimizer::_target_": "torch.optim.Adam"}, "optimizer = AdamW, but optimizer is now Adam; set it back."),
        ({"load::7::pixdim": [1, 1, 2]}, "Cases are read differently than"),
        ({"head": "@heads::classes"}, "activation = sigmoid, but activation is now softmax; set it back."),
    ],
)
def test_settings_that_would_make_it_another_training_are_refused(changed, sentence, uninterrupted, patients, tmp_path):
    shutil.copytree(uninterrupted(2), tmp_path, dirs_exist_ok=True)
    before = results(tmp_path)
    assert finish(start(tmp_path, patients("brats2021"), 4, **changed)) == 2
    assert sentence in (tmp_path / "log").read_text()
    assert results(tmp_path) == before
