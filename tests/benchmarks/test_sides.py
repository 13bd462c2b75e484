"""What is measured of a side or a command is its own."""

import sys

import numpy as np
import pytest
from tumour.processes import peak_memory

from benchmarks.machine import measured
from benchmarks.sides import ratio_of, take_turns
from tests.conftest import ROOT

SIDE = "from benchmarks.sides import serve\nserve(lambda: {'length': len(b'x' * 400_000_000)})"


@pytest.fixture
def large():
    """An array of 2 GB in this process."""
    return np.ones(2**28)


def test_the_peak_memory_of_a_side_is_not_that_of_the_process_that_started_it(large, tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(SIDE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    turns = take_turns("worker", ["one"], 2)["one"]
    assert turns["length"] == [400_000_000] * 2 and len(turns["seconds"]) == 2
    assert 0.4 < turns["peak_gb"][-1] < 1.8 < peak_memory()


def test_a_ratio_is_the_median_of_the_rounds_of_their_time_to_ours():
    assert ratio_of([2, 4, 9], ours=[1, 2, 3]) == "2.00"


def test_the_peak_memory_of_a_command_is_not_that_of_the_process_that_started_it(large):
    work = "import time; text = b'x' * 400_000_000; time.sleep(0.5)"
    seconds, memory = measured([sys.executable, "-c", work])
    assert seconds > 0.5 and 0.4 < memory < 1.8 < peak_memory()
