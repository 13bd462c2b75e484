"""Tiny synthetic patients, and bundles run with the command line of a user."""

import copy
import gc
import io
import logging
import os
import random
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tools.command import flags, run_command

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(path.parents[1].name for path in ROOT.glob("bundles/*/configs/train.yaml"))
CONVENTIONS = ("brats2021", "brats2023_gli", "msd")
REAL = ROOT.parent / "shared" / "data"  # real patients, if the machine has them

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if not (config.getoption("--slow") or "slow" in config.option.markexpr):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: give --slow to run it"))


@pytest.fixture
def at_the_root(monkeypatch):
    """Run a test in the root of the repository."""
    monkeypatch.chdir(ROOT)


PARSED: dict[tuple[str, bytes], Any] = {}


@pytest.fixture
def parsed_once(at_the_root, monkeypatch):
    """Run a test in the root of the repository, with each config file parsed once per test run."""
    from monai.bundle import ConfigParser

    read = ConfigParser.load_config_file

    def load(path, **_):
        key = str(path), Path(path).read_bytes()
        if key not in PARSED:
            PARSED[key] = read(path)
        return copy.deepcopy(PARSED[key])

    monkeypatch.setattr(ConfigParser, "load_config_file", staticmethod(load))


@pytest.fixture(scope="session")
def patients(tmp_path_factory):
    """Folder of six patients of 40³ voxels, by cohort; created once per test run."""
    from tools.patients.synthetic import make_patients

    folders: dict[str, Path] = {}

    def folder(convention: str) -> Path:
        if convention not in folders:
            folders[convention] = tmp_path_factory.mktemp(convention)
            make_patients(folders[convention], cases=6, size=40, cohort=convention)
        return folders[convention]

    return folder


@pytest.fixture(scope="session")
def twelve(tmp_path_factory):
    """Twelve patients: two for validation and two for testing, so that each of two processes has one."""
    from tools.patients.synthetic import make_patients

    folder = tmp_path_factory.mktemp("twelve")
    make_patients(folder, cases=12, size=40)
    return folder


def parser_of(cohort: str, data: Path, *layers: str, **settings: Any) -> Any:
    """The parsed configs of some layers of common/, for a folder of patients."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config([str(ROOT / f"bundles/common/{name}.yaml") for name in ("cohorts", "network", *layers)])
    parser.update({"cohort": cohort, "dataset_dir": str(data), "output_dir": f"{data}-results", **settings})
    return parser


TINY: dict[str, Any] = {
    "patch_size": [32, 32, 32],
    "epochs": 2,
    "iterations_per_epoch": 2,
    "val_interval": 1,
    "workers": 0,
    "overlap": 0,
    "precision": "float32",
}


def arguments(
    run_id: str, bundle: str, folder: Path, cohort: str, data: Path, recipe: str = "", **settings: Any
) -> list[str]:
    """The command line of a tiny run: 32-voxel patches, two epochs of two steps."""
    tiny = {
        "cohort": cohort,
        "dataset_dir": data,
        "ckpt_dir": folder / "models",
        "output_dir": folder / "results",
        **TINY,
    }
    files: dict[str, Any] = {"args_file": f"bundles/{bundle}/args.yaml"}
    files |= {"+config_file": [f"bundles/common/recipes/{recipe}.yaml"]} if recipe else {}
    return [*run_command(run_id), *flags(files | tiny | settings)]


@contextmanager
def restored() -> Iterator[None]:
    """Restore the folder, search path, hooks, logging, seeds and signals of this process afterwards."""
    import monai.utils.misc as seeds
    import numpy as np
    import torch

    cudnn = torch.backends.cudnn
    loggers = [logging.getLogger(name) for name in ("", "bundle")]
    logged = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for owner, name in ((sys, "argv"), (seeds, "_seed"), (cudnn, "benchmark"), (cudnn, "deterministic")):
            patch.setattr(owner, name, getattr(owner, name))
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "excepthook", sys.__excepthook__)
        for logger in loggers:
            logger.handlers = []
        try:
            yield
        finally:
            for logger, (handlers, level, propagate) in zip(loggers, logged, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
                logger.setLevel(level)
            for number, handler in signals.items():
                signal.signal(number, handler)
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


def here(command: list[str]) -> subprocess.CompletedProcess:
    """Run a command line of MONAI in this process, because starting another one takes longer than a tiny run.

    What only a process has (signals, the exit status of an interpreter) is tested by `run_in_a_process`.
    """
    assert command[:3] == [sys.executable, "-m", "monai.bundle"]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with restored(), redirect_stdout(out), redirect_stderr(err):
        sys.argv = command[2:]
        try:
            runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except (Exception, KeyboardInterrupt):
            try:
                sys.excepthook(*sys.exc_info())  # as Python does at the end of a process
                status = 1
            except SystemExit as stop:
                status = int(stop.code or 0)
    gc.collect()  # engines and handlers refer to each other
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def forked(function: Callable[[], Any]) -> int:
    """Call a function in a copy of this process, which has imported everything and can be killed; its process number.

    Its exit status is what the function returns.
    """
    process = os.fork()
    if process:
        return process
    status = 99
    try:
        status = function() or 0
    finally:
        os._exit(status)


def run(*args: Any, **settings: Any) -> subprocess.CompletedProcess:
    """Run a bundle with the command line of a user, in this process."""
    return here(arguments(*args, **settings))


def run_in_a_process(*args: Any, **settings: Any) -> subprocess.CompletedProcess:
    """Run a bundle exactly as a user does, in a process in the root of the repository."""
    command = arguments(*args, **settings)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def succeed(*args: Any, **settings: Any) -> str:
    """Run a bundle, which must succeed; its standard output."""
    done = run(*args, **settings)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope="session")
def trained(patients, tmp_path_factory):
    """Folder with the models and results of a tiny training, by bundle and cohort; trained once per test run."""
    folders: dict[tuple[str, str], Path] = {}

    def folder(bundle: str, convention: str = "brats2021") -> Path:
        key = bundle, convention
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("-".join(key))
            succeed("training", bundle, folders[key], convention, patients(convention))
        return folders[key]

    return folder
