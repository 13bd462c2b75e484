"""A command that runs another one lets it finish."""

import os
import signal
import subprocess
import sys
import time

from tests.conftest import ROOT

# what a training does: it ends at its own time, after it has saved its state
CHILD = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(130)
signal.signal(signal.SIGINT, save)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""
PARENT = """
import signal, sys
from tools.command import status_of
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background ignores it
status_of([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""


def test_after_an_interrupt_the_command_that_runs_has_its_time_to_save(tmp_path):
    command = [sys.executable, "-c", PARENT, CHILD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, errors = process.communicate(timeout=30)
    assert (tmp_path / "saved").exists() and "Stopped: stopped; run the same command again to continue." in errors
