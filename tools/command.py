"""Run a bundle as a user does: its command line, and the memory that the process needed."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command line."""
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def run_command(run_id: str, **settings: Any) -> list[str]:
    """The command that runs a bundle."""
    return [sys.executable, "-m", "monai.bundle", "run", run_id, *flags(settings)]


def wait_for(process: subprocess.Popen) -> tuple[int, float]:
    """Wait for a process to end; its exit status and its peak memory in GB."""
    _, status, usage = os.wait4(process.pid, 0)  # subprocess does not report memory
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 2**20
