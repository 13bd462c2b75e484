"""Two processes on a CPU, as a test of several GPUs."""

import re
import signal
import subprocess
import time

import pandas as pd
import pytest
import torch
from tumour import processes as parallel
from tumour.errors import InputError

from tests.conftest import BUNDLES, ROOT, arguments, succeed


def start(run_id, overlay, *args, **settings):
    """A bundle on two processes, with the overlay on top of the layers of its args file."""
    command = arguments(run_id, *args, test_share=0, **settings)
    torchrun = [command[0], "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, *command[1:], "--+config_file", str([f"bundles/common/{overlay}.yaml"])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed[-6000:]
    return printed


def curve(folder):
    return pd.read_csv(folder / "results" / "training.csv").drop(columns="seconds")


@pytest.mark.parametrize(("cases", "number"), [(7, 3), (4, 4)])
def test_every_case_is_in_exactly_one_share(cases, number, monkeypatch):
    monkeypatch.setattr(parallel, "processes", lambda: number)
    shares = []
    for rank in range(number):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        shares.append(parallel.share(range(cases)))
    assert sorted(case for part in shares for case in part) == list(range(cases)) and all(shares)
    with pytest.raises(InputError, match=f"only 1 case.* for {number} processes"):
        parallel.share(range(1))


def test_two_processes_learn_the_same_as_one_with_the_same_total_batch(patients, tmp_path):
    """Complete volumes, all four patients in each step, and a mean over patients as loss: the steps must agree."""
    data = patients("brats2021")
    settings = {
        "patch_size": [48, 48, 48],
        "augment": [],
        "losses::dice_bce::dice_weight": 0,
        "iterations_per_epoch": 3,
    }
    succeed("training", BUNDLES[0], tmp_path / "one", "brats2021", data, test_share=0, batch_size=4, **settings)
    settings |= {"batch_size": 2}
    finish(start("training", "multi_gpu_train", BUNDLES[0], tmp_path / "two", "brats2021", data, **settings))
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == 2 and one["loss"].is_monotonic_decreasing
    pd.testing.assert_frame_equal(one, two, rtol=1e-3, atol=1e-4)
    checked = [(tmp_path / run / "results" / "check.csv").read_text() for run in ("one", "two")]
    assert checked[0] == checked[1] and checked[0].count("\n") == 7  # all six cases, each checked by one process


def test_two_processes_that_are_stopped_and_resumed_equal_two_that_are_not(patients, tmp_path):
    given = ("training", "multi_gpu_train", BUNDLES[0], tmp_path, "brats2021", patients("brats2021"))
    process = start(*given, epochs=40, iterations_per_epoch=3, **{"lr_scheduler::t_total": 120})
    while not (tmp_path / "models" / "last.ckpt").is_file():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and printed.count("run the same command again to resume") == 1
    stopped = torch.load(tmp_path / "models" / "last.ckpt", weights_only=True)
    assert not any(name.startswith("module.") for name in stopped["network"])
    epochs = stopped["engine"]["iteration"] // 3 + 1
    assert 1 < epochs < 40
    settings = {"epochs": epochs, "iterations_per_epoch": 3, "lr_scheduler::t_total": 120}
    printed = finish(start(*given, **settings))
    assert f"at epoch {epochs}" in printed
    assert re.findall(r"INFO epoch (\d+)/", printed) == [str(epochs)]  # only one process logs
    assert curve(tmp_path)["epoch"].tolist() == list(range(1, epochs + 1))
    finish(start(*given[:3], tmp_path / "uninterrupted", *given[4:], **settings))
    pd.testing.assert_frame_equal(curve(tmp_path), curve(tmp_path / "uninterrupted"), check_exact=True)
    for name in ("model.pt", "last.ckpt"):
        assert (tmp_path / "models" / name).read_bytes() == (tmp_path / "uninterrupted/models" / name).read_bytes()
