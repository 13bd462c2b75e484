"""The files that name a version agree, and a Python that does not fit is refused in one sentence."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.conftest import ROOT
from tests.documents import commands


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(read("pyproject.toml"))


def test_the_supported_versions_of_python_are_the_same_everywhere():
    low, high = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    assert f"python>=3.{low},<3.{high}" in yaml.safe_load(read("environment.yml"))["dependencies"]
    assert f"(3, {low}) <= sys.version_info < (3, {high})" in read("Makefile")
    assert PROJECT["tool"]["mypy"]["python_version"] == f"3.{low}"
    names = [f"3.{minor}" for minor in range(int(low), int(high))]
    for page in ("README.md", "docs/systems.md", "Makefile"):
        assert f"Python {', '.join(names[:-1])} or {names[-1]}" in read(page)
    assert re.search(r"^FROM python:(3\.\d+)", read("Dockerfile"), re.MULTILINE)[1] in names


def test_the_version_of_the_software_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[1] == version


def test_the_plain_commands_for_windows_install_what_make_setup_installs(tmp_path):
    plain = [each for each in commands(ROOT / "docs/systems.md") if each.startswith("pip install")]
    (torch,) = (each for each in yaml.safe_load(read("environment.yml"))["dependencies"][-1]["pip"] if "torch=" in each)
    assert len(plain) == 2 and plain[-1] == f"pip install {torch}"
    for name in ("Makefile", "environment.yml", "environment.lock"):
        (tmp_path / name).write_text(read(name))
    shown = ["make", "-n", "setup", f"PYTHON={sys.executable}"]
    made = subprocess.run(shown, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert re.findall("pip install .*", made.replace(" --quiet", "")) == plain


@pytest.mark.parametrize("python", ["PYTHON=", "PYTHON=absent", "PYTHON=old"])
def test_a_python_that_does_not_fit_is_refused_in_one_sentence(python, tmp_path):
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    for name in ("Makefile", "environment.yml", "environment.lock"):
        (tmp_path / name).write_text(read(name))
    given = python.replace("old", "./old")
    done = subprocess.run(["make", "setup", given], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and "make setup needs Python 3.11, 3.12 or 3.13 and found none; install one" in done.stdout
    assert not (tmp_path / ".venv").exists()
