"""Processes for augmentation that start by spawn, as on macOS and Windows: what they get must be picklable."""

import os
import subprocess

import pytest
from tumour.records import read_table

from tests.conftest import ROOT, arguments

SPAWN = "import multiprocessing\nmultiprocessing.set_start_method('spawn', force=True)\n"


def test_a_training_with_spawned_workers_has_the_losses_of_one_without_workers(patients, trained, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SPAWN)  # Python runs it first
    command = arguments("training", "unet3d", tmp_path, "brats2021", patients("brats2021"), workers=2)
    own = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    ours, others = (read_table(folder / "results" / "training.csv") for folder in (tmp_path, trained("unet3d")))
    assert list(ours["loss"]) == pytest.approx(list(others["loss"]), abs=1e-3)
