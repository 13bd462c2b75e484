"""What a benchmark ran on, and how its rounds are told."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tumour.runs.precision import best_precision


def machine(*packages: str) -> str:
    """Date, processor, memory and versions in one line."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    half = "" if best_precision("cpu") == "bfloat16" else " without bfloat16"
    return (
        f"{datetime.date.today()}, {len(names)} x {names[0].split(': ')[1]}{half}, {kilobytes / 2**20:.0f} GB, "
        f"Python {platform.python_version()}, {versions}"
    )


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; the sides take turns, so that a slow minute of the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds of a Python module's command line, and the peak memory of its main process in GB."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=printed, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            printed.seek(0)
            raise SystemExit(printed.read().decode()[-4000:])
    return time.perf_counter() - began, usage.ru_maxrss / 2**20


def seconds_text(seconds: list[float]) -> str:
    """Seconds as their median with the least and the most."""
    return f"{np.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
