"""Killed at any moment, a command leaves no incomplete file and no process, and the same command then finishes."""

import json
import os
import random
import shutil
import signal
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import BUNDLES, arguments, forked, here
from tests.members import member
from tools import crossvalidate
from tools.__main__ import COMMANDS
from tools.command_line import command_line

pytestmark = pytest.mark.usefixtures("at_the_root")
TOOLS = ("check", "datalist", "score", "ensemble", "release", "patients", "measure")
RUNS = ("inferring", "evaluating", "fitting", "reporting")
READERS = {
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": lambda path: path.stat().st_size and pd.read_csv(path),
    ".gz": lambda path: nib.load(path).get_fdata(),
    ".pt": lambda path: torch.load(path, weights_only=True),
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".zip": lambda path: zipfile.ZipFile(path).testzip() and pytest.fail(str(path)),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".png": lambda path: Image.open(path).load(),
    ".gif": lambda path: Image.open(path).load(),
    ".webp": lambda path: Image.open(path).load(),
    ".html": lambda path: path.read_text().rstrip().endswith("</html>") or pytest.fail(str(path)),
}


@pytest.fixture(scope="module")
def commands(patients, trained, tmp_path_factory):
    """Every command as a function of the folder that it writes to, by name; and what prepares this folder."""
    data, models = patients("brats2021"), tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        member(models / f"member{seed}", BUNDLES[0], seed=seed, train=["nobody"], validate=["BraTS2021_00001"])
    predictions = models / "predictions"
    predictions.mkdir()
    for path in data.rglob("*_seg.nii.gz"):
        shutil.copyfile(path, predictions / path.name.replace("_seg", ""))
    cohort = ["--cohort", "brats2021"]
    dataset = [*cohort, "--dataset_dir", str(data)]
    words = {
        "check": lambda out: [*dataset, "--output", out],
        "datalist": lambda out: [*dataset, "--output", f"{out}/datalist.json"],
        "score": lambda out: [*cohort, "--reference", str(data), "--prediction", str(predictions), "--output", out],
        "ensemble": lambda out: ["--members", f"{models}/member0 {models}/member1", "--output", out],
        "release": lambda out: [BUNDLES[0], "--output", out, "--weights", str(models / "member0" / "model.pt")],
        "patients": lambda out: ["--output", out, "--cases", "3", "--size", "40"],
        "measure": lambda out: ["cases", "--labels", str(predictions), *cohort, "--output", out],
        "crossvalidate": lambda out: [
            *["folds", "--bundle", BUNDLES[0], *dataset, "--output", out, "--folds", "2", "--workers", "0"],
            *["--patch_size", "[32, 32, 32]", "--epochs", "1", "--iterations_per_epoch", "1", "--overlap", "0"],
        ],
    }

    def tool(name):
        def call(out):
            crossvalidate.subprocess = SimpleNamespace(
                Popen=lambda command: SimpleNamespace(wait=lambda: here(command).returncode)
            )
            try:
                command_line(COMMANDS, "python -m tools", [name, *words[name](str(out))])
            except SystemExit as stop:
                return stop.code
            return 0

        return call

    def prepare(name, out):
        if name == "reporting":
            shutil.copytree(trained(BUNDLES[0]), out, dirs_exist_ok=True)
        elif name in RUNS:
            shutil.copytree(models / "member0", out / "models")

    def run(run_id):
        def call(out):
            settings = {"test_share": 0.4} if run_id == "evaluating" else {}
            return here(arguments(run_id, BUNDLES[0], out, "brats2021", data, **settings)).returncode

        return call

    return {name: tool(name) for name in words} | {name: run(name) for name in RUNS}, prepare


def quietly(command, out):
    """The call of a command in a copy of this process, in a session of its own."""

    def call():
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        return command(out)

    return call


def session(process):
    """The processes of a session that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == process and state != "Z":
            found.append(path.parent.name)
    return found


def require_complete(out):
    """Every file under its final name can be read to its end."""
    for path in out.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if path.is_file() and not hidden and path.suffix in READERS:
            READERS[path.suffix](path)


def names(out):
    return {str(path.relative_to(out)) for path in out.rglob("*") if "tfevents" not in path.name}


def kill_and_finish(name, command, out, after):
    """Kill a command after a number of seconds; whether it was killed before its end. Then let it finish."""
    process = forked(quietly(command, out))
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(process, 0)[1])
    require_complete(out)
    for _ in range(100):
        if not session(process):
            break
        time.sleep(0.1)
    assert not session(process), f"{name}: processes are left"
    again = forked(quietly(command, out))
    status = os.waitstatus_to_exitcode(os.waitpid(again, 0)[1])
    require_complete(out)
    return killed, status


def some(number):
    """A command for each kill: the tools in the suite, all of them and the runs with --slow."""
    every = (*TOOLS, *RUNS, "crossvalidate")
    return [pytest.param(every[n % len(every)], n, marks=pytest.mark.slow) for n in range(number)]


@pytest.fixture(scope="module")
def uninterrupted(commands, tmp_path_factory):
    """The files, the status and the seconds of a command that is not interrupted, by its name; run once."""
    known = {}

    def uninterrupted(name):
        if name not in known:
            out = tmp_path_factory.mktemp(name)
            commands[1](name, out)
            began, process = time.monotonic(), forked(quietly(commands[0][name], out))
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            known[name] = names(out), status, time.monotonic() - began
        return known[name]

    return uninterrupted


@pytest.mark.parametrize(("name", "seed"), [("check", 0), ("ensemble", 1), ("release", 2), *some(40)])
def test_a_command_that_is_killed_leaves_nothing_and_then_finishes(name, seed, commands, uninterrupted, tmp_path):
    files, expected, seconds = uninterrupted(name)
    assert files and expected in (0, 1)
    commands[1](name, tmp_path)
    _, status = kill_and_finish(name, commands[0][name], tmp_path, random.Random(seed).random() * seconds)
    assert status == expected
    assert names(tmp_path) == files
