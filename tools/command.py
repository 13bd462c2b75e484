"""The command line of a user."""

import sys
from collections.abc import Mapping
from typing import Any


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command line."""
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def run_command(run_id: str, **settings: Any) -> list[str]:
    """The command that runs a bundle."""
    return [sys.executable, "-m", "monai.bundle", "run", run_id, *flags(settings)]
