"""The command line of a user."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tumour.errors import InputError, Stopped


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command line."""
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def run_command(run_id: str, **settings: Any) -> list[str]:
    """The command that runs a bundle."""
    return [sys.executable, "-m", "monai.bundle", "run", run_id, *flags(settings)]


def status_of(command: Sequence[str]) -> int:
    """Run a command; its exit status. After Ctrl-C, which the command receives too, wait until it has stopped."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise Stopped("stopped; run the same command again to continue.") from None


def failed(command: Sequence[str], status: int) -> InputError:
    return InputError(f"'{' '.join(command)}' ended with status {status}; see its output above.")
