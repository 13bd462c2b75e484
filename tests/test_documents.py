"""Every command in every document: its program, targets, options and values are checked, and a test runs each kind."""

import os
import re
import shlex
import subprocess
from functools import cache

import pytest
from tumour.runs import options

from tests.conftest import ROOT
from tests.documents import commands, documents
from tools.__main__ import COMMANDS as TOOLS
from tools.command_line import call_of, chosen

# What only other programs can check, and where it is run
ELSEWHERE = {
    r"conda (env create|activate)": "the solver of conda; its file is what make setup reads",
    r"python3 -m venv \.venv|(\.venv/bin/)?pip install": "make setup, and tests/test_versions.py",
    r'py -3\.\d+ -m venv|\.venv\\Scripts\\Activate|python -c "import re': "tests/test_versions.py; Windows: not run",
    r"docker (build|run)": "no Docker runs in CI: hadolint and tests/test_versions.py check the Dockerfile",
    r"python3.11 -m venv /tmp/official|BRATS_EVALUATION=": "tests/scores/test_official.py, in its own environment",
    r"git clone .*2024-Metrics|python3.11 -m venv /tmp/metrics|BRATS_METRICS=": "tests/scores/test_official_2025.py",
    r"HEAD=\$\(scontrol": "SLURM: not run; two nodes on one machine were tried, see docs/devices.md",
    r"make( -n TARGET)?$": "make itself",
    r"pytest --slow": "pytest itself",
    r"monailabel |python -m zipfile ": "MONAI Label: tests/clients/label.py runs its app without the server",
    r"(\.venv/benchmark/bin/|\.venv/bin/)?python -m benchmarks\.(\w+)": "tests/benchmarks, or its docstring",
    r".*(ENSEMBLE=|%bundles/)": "tests/tools/test_ensemble.py, tests/bundles/test_run.py: a run writes the file first",
    r"(torchrun|python -m monai.bundle).*(configs/(train|evaluate|inference)\.json|ckpt_export)": "tests/release",
}
STAND_INS = {  # of names that a reader replaces, or adds as tests/bundles/test_own_data.py does
    r"(cohort |COHORT=)(clinic|from_nnunet|NAME)": r"\1brats2021",
    r"bundles/NAME": "bundles/resunet",
}
COMMANDS = sorted({(path.relative_to(ROOT).as_posix(), each) for path in documents() for each in commands(path)})
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))


@cache
def expanded(command: str) -> tuple[str, ...]:
    """The commands that make would run."""
    words = [word for word in shlex.split(command)[1:] if word != "..."]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    dry = ["make", "--dry-run", "--assume-old=.venv/ready", "--assume-old=.venv/docs/ready", *words]
    printed = subprocess.run(dry, cwd=ROOT, env=own, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    return tuple(re.sub(r"\\\n\s*", "", printed.stdout).splitlines())


def check_run(words: list[str]) -> None:
    """The options of a MONAI command belong to its config and their values are in range; a test runs its run id."""
    run_id = options.run_id_of(words)
    if len(words) > 2:
        options.check_command(words)
        assert f'"{run_id}"' in TESTS


def check_tool(words: list[str]) -> None:
    """The options of a command of tools/ are its own, and a test uses its module."""
    function, name, rest = chosen(TOOLS, "python -m tools", words)
    if not isinstance(function, dict):
        package, _, module = function.__module__.rpartition(".")
        assert re.search(rf"{package}\.{module}\b|from {package} import .*\b{module}\b", TESTS), f"untested: {module}"
    if rest:
        call_of(function, name, rest)


def check(command: str) -> None:
    """Check a command, or those that its make target would run."""
    if any(re.match(known, command) for known in ELSEWHERE):
        return
    if command.startswith("make "):
        for line in expanded(command):
            if re.search(r"-m (monai\.bundle|tools) ", line):
                check(line)
        return
    words = shlex.split(command)
    if "monai.bundle" in words:
        check_run(words[words.index("monai.bundle") + 1 :])
    elif words[1:3] == ["-m", "tools"]:
        check_tool(words[3:])
    else:
        pytest.fail(f"no test knows '{command}'; add it to ELSEWHERE with the place where it is run")


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=[f"{name}: {each[:60]}" for name, each in COMMANDS])
def test_a_command_of_a_document_is_one_that_works(document, command, parsed_once, monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():  # as torchrun sets them
        monkeypatch.setenv(name, value)
    for name, stand_in in STAND_INS.items():
        command = re.sub(name, stand_in, command)
    check(command)


@pytest.mark.parametrize(
    "wrong",
    [
        "make trian BUNDLE=resunet",
        "make train BUNDLE=resunet DATA=DIR ARGS='--epoch 3'",
        "python -m monai.bundle run training --args_file bundles/resunet/args.yaml --overlap 2",
        "python -m tools score --refrence DIR",
        "python -m tools absent",
        "curl https://example.org",
    ],
)
def test_a_command_that_does_not_work_is_found(wrong, parsed_once):
    with pytest.raises((AssertionError, ValueError, ImportError, pytest.fail.Exception)):
        check(wrong)
