"""Two processes on a CPU, as a test of several GPUs."""

import json
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from tumour import processes as parallel
from tumour.errors import InputError

from tests.conftest import BUNDLES, ROOT, arguments, succeed
from tests.members import member
from tests.runs.test_continue import stamps, stopped_after


def start(run_id, overlay, *args, more=(), **settings):
    """A bundle on two processes, with the overlay on top of the layers of its args file."""
    command = arguments(run_id, *args, test_share=0, **settings)
    torchrun = [command[0], "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, *command[1:], "--+config_file", str([f"bundles/common/{overlay}.yaml", *more])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


PRINT_THREADS = "+finalize:\n- $__import__('tests.runs.test_parallel', fromlist='*').print_threads()"


def print_threads():
    print("threads", [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")])


def start_node(number, port, run_id, overlay, *args, **settings):
    """One of two nodes with one process each, which meet at a port of this machine."""
    command = arguments(run_id, *args, **settings)
    meet = ["--rdzv_backend=c10d", "--rdzv_id=test", f"--rdzv_endpoint=127.0.0.1:{port}", "--local_addr=127.0.0.1"]
    torchrun = [
        command[0],
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        f"--node_rank={number}",
        "--nproc_per_node=1",
        *meet,
    ]
    command = [*torchrun, *command[1:], "--+config_file", str([f"bundles/common/{overlay}.yaml"])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def on_two_nodes(*args, **settings):
    port = free_port()
    nodes = [start_node(number, port, *args, **settings) for number in range(2)]
    return [finish(node) for node in nodes]


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
        "drop": [],
        "norm": "instance",  # batch normalisation: each process has its own batch
        "losses::dice_bce::dice_weight": 0,
        "iterations_per_epoch": 3,
    }
    succeed("training", BUNDLES[0], tmp_path / "one", "brats2021", data, test_share=0, batch_size=4, **settings)
    settings |= {"batch_size": 2, "more": [str(tmp_path / "threads.yaml")]}
    (tmp_path / "threads.yaml").write_text(PRINT_THREADS)
    printed = finish(start("training", "multi_gpu_train", BUNDLES[0], tmp_path / "two", "brats2021", data, **settings))
    assert printed.count("threads [") == 2 and "gloo" not in printed  # else a process may be aborted when Python ends
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


def maps(folder):
    paths = sorted((folder / "results" / "segmentations").glob("*.nii.gz"))
    return {path.name: np.asarray(nib.load(path).dataobj) for path in paths}


def require_equal_runs(one, two):
    """The same label maps bit for bit, each case recorded once."""
    ours, theirs = maps(one), maps(two)
    assert len(ours) == 6 and ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[case], theirs[case]) for case in ours)
    cases = [case["name"] for case in json.loads((two / "results/runs/inferring.json").read_text())["cases"]]
    assert sorted(cases) == sorted(name.removesuffix(".nii.gz") for name in ours)


@pytest.fixture(scope="module")
def segmented(patients, tmp_path_factory):
    """Weights, and what one process makes of six patients with them."""
    folder = tmp_path_factory.mktemp("segmented")
    member(folder / "models", BUNDLES[0])
    succeed("inferring", BUNDLES[0], folder / "one", "brats2021", patients("brats2021"), ckpt_dir=folder / "models")
    return folder


def test_two_processes_segment_as_one_does_and_each_case_once(segmented, patients, tmp_path):
    given = BUNDLES[0], tmp_path, "brats2021", patients("brats2021")
    printed = finish(start("inferring", "multi_gpu_infer", *given, ckpt_dir=segmented / "models"))
    assert "6 of 6 cases segmented" in printed
    require_equal_runs(segmented / "one", tmp_path)


@pytest.mark.usefixtures("at_the_root")
def test_two_processes_continue_what_one_began(segmented, patients, tmp_path):
    data, models = patients("brats2021"), segmented / "models"
    stopped_after(3, "inferring", tmp_path, data, ckpt_dir=models, test_share=0)
    before = stamps(tmp_path)
    settings = {"ckpt_dir": models, "after_treatment::smallest_piece": {"ET": 1}}
    printed = finish(start("inferring", "multi_gpu_infer", BUNDLES[0], tmp_path, "brats2021", data, **settings))
    assert "3 of 6 cases were finished" in printed and "6 of 6 cases segmented" in printed
    after = stamps(tmp_path)
    assert len(before) >= 3 and len([case for case in before if after[case] == before[case]]) == 3


def test_two_nodes_segment_as_one_process_does(segmented, patients, tmp_path):
    given = BUNDLES[0], tmp_path, "brats2021", patients("brats2021")
    first, second = on_two_nodes("inferring", "multi_gpu_infer", *given, ckpt_dir=segmented / "models")
    assert "6 of 6 cases segmented" in first + second
    require_equal_runs(segmented / "one", tmp_path)


def test_two_nodes_train_as_two_processes_of_one_node_do(twelve, tmp_path):
    def given(name):
        return BUNDLES[0], tmp_path / name, "brats2021", twelve

    finish(start("training", "multi_gpu_train", *given("one")))
    on_two_nodes("training", "multi_gpu_train", *given("two"), test_share=0)
    pd.testing.assert_frame_equal(curve(tmp_path / "one"), curve(tmp_path / "two"))
    one, two = (torch.load(tmp_path / name / "models" / "model.pt", weights_only=True) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
