"""`make gpu` on a machine without one: its stages are tried on the CPU with tiny patients."""

import sys

import pytest
import torch

from benchmarks import gpu, ours, waiting
from tests.bundles.test_make import words
from tests.conftest import restored

pytestmark = pytest.mark.usefixtures("at_the_root")


@pytest.fixture(autouse=True)
def seeds_and_flags():
    with restored():
        yield


def test_without_a_gpu_it_says_so_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--data", "", "--cohort", "brats2021"])
    with pytest.raises(SystemExit) as stop:
        gpu.command_line(gpu.main, "benchmarks.gpu")
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and not out and err.startswith("PyTorch finds no GPU") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("environment", ["versions", "CPU"]),
        ("steps", ["step, fast, bfloat16", "step, fast, float32"]),
        ("inference", ["scan, from file to file, cpu"] * 2 + ["same label on cpu and cpu"]),
        ("checkpoints", ["training; its checkpoints"]),
    ],
)
def test_a_stage_reports_what_it_checks(name, checks, patients, tmp_path):
    rows = list(gpu.STAGES[name](str(patients("brats2021")), "brats2021", "cpu", tmp_path))
    assert [check for check, _ in rows] == checks and all(result for _, result in rows)
    if name == "inference":
        assert rows[-1][1] in [
            f"100.0000% of all voxels, {all_of_it} tumour" for all_of_it in ("100.00% of", "none of them")
        ]
    if name == "checkpoints":
        assert rows[0][1] == "model.pt on cpu; last.ckpt on cpu"


def test_a_training_waits_at_each_number_of_workers(patients, tmp_path, monkeypatch):
    asked = []
    run = lambda *args, **settings: asked.append((args[4], settings["workers"])) or (0.25, 0.1)  # noqa: E731
    monkeypatch.setattr(gpu, "wait_and_step", run)
    monkeypatch.setattr(gpu, "workers_for", lambda device: 6)
    rows = list(gpu.waiting("data", "brats2021", "cuda", tmp_path))
    assert [workers for _, workers in asked] == [6, 12, 6] and rows[0][1] == "25.0% of 100 ms per step"
    assert [bool(layer) for layer, _ in asked] == ["GPU" in check for check, _ in rows] == [False, False, True]


@pytest.mark.parametrize("layer", ["", "bundles/common/augment_on_device.yaml"])
def test_the_share_of_waiting_is_that_of_the_steps_without_validation(layer, patients, monkeypatch):
    monkeypatch.setattr(waiting, "WARM_UP", 2)
    settings = {"patch_size": [32] * 3, "overlap": 0, "workers": 0, "precision": "float32"}
    share, seconds = waiting.wait_and_step(str(patients("brats2021")), "brats2021", "unet3d", 4, layer, **settings)
    assert 0 < share < 1 and seconds > 0


def test_make_runs_it_with_or_without_patients():
    for folder in ("", "my data"):
        line = words("gpu", DATA=folder)
        assert line[1:] == ["-m", "benchmarks.gpu", "--data", folder, "--cohort", "brats2021"]


def test_one_stage_that_fails_or_hangs_does_not_end_the_others(monkeypatch, capsys):
    programs = {
        "good": 'print(\'{"check": "a", "result": "b"}\')',
        "bad": "raise ValueError('too | bad')",
        "slow": 'import time; print(\'{"check": "c", "result": "d"}\', flush=True); time.sleep(600)',
    }
    popen = gpu.subprocess.Popen
    run = lambda command, **given: popen([sys.executable, "-c", programs[command[4]]], **given)  # noqa: E731
    monkeypatch.setattr(gpu.subprocess, "Popen", run)
    assert gpu.run_stage("good", 60) == [{"check": "a", "result": "b"}]
    assert gpu.run_stage("bad", 60) == [{"check": "bad", "result": "failed with exit status 1: ValueError: too   bad"}]
    first, last = gpu.run_stage("slow", 5)
    assert first["result"] == "d" and last["result"].startswith("stopped after 5 s")


def test_all_stages_together_take_less_than_ten_minutes_and_are_processes(monkeypatch, capsys):
    assert sum(gpu.LIMITS.values()) < 600
    monkeypatch.setattr(gpu, "LIMITS", {gpu.environment: 300})
    monkeypatch.setattr(gpu, "make_patients", lambda *args, **settings: None)
    table = gpu.main(device="cpu")
    assert "| versions | torch " in table and "| CPU | " in table


def test_our_side_of_a_benchmark_is_built_on_the_cpu_unless_a_device_is_named():
    assert ours.config("unet3d")["device"] == "cpu" and ours.config("unet3d", device="cpu:0")["device"] == "cpu:0"
