"""The machine of a benchmark, and times as text."""

import datetime
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tumour.processes import peak_memory
from tumour.runs.inferers import best_precision

WITHOUT = "" if best_precision("cpu") == "bfloat16" else "without bfloat16"  # what this CPU lacks


def machine(*packages: str) -> str:
    """Date, processor, memory and versions in one line."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    processor = f"{names[0].split(': ')[1]} {WITHOUT}".strip()
    return (
        f"{datetime.date.today()}, {len(names)} x {processor}, {kilobytes / 2**20:.0f} GB, "
        f"Python {platform.python_version()}, {versions}"
    )


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; the sides take turns, so that a slow minute affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the peak memory of its main process in GB, read until it ends."""
    began, memory = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        while process.returncode is None:
            memory = max(memory, peak_memory(process.pid) or 0)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        if process.returncode:
            printed.seek(0)
            raise SystemExit(printed.read().decode()[-4000:])
    return time.perf_counter() - began, memory


def seconds_text(seconds: list[float]) -> str:
    """The median with minimum and maximum."""
    return f"{np.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
