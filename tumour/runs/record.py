"""Write down what a run was: settings, versions, device, seconds, peak memory, cases left out."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from tumour.files import save_json, whole
from tumour.processes import rank
from tumour.runs.layers import config_of

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most memory that this process has held until now, in GB, by place."""
    peak = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
        peak["of the main process"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)
    if device.type == "cuda":
        peak["on the GPU"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    return peak


class RunRecord:
    """Handler that keeps `path` up to date: from the first step to the end, or to the last epoch of a run that stops.

    Beside it lies the merged config, as `NAME.yaml`.

    Args:
        path: JSON file.
        device: where the network runs.
        left_out: sentences on cases left out, which may still grow.
    """

    def __init__(self, path: str, device: torch.device | str, left_out: Sequence[str]) -> None:
        self.path, self.device, self.left_out = Path(path), torch.device(device), left_out

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write, state="not finished")
        engine.add_event_handler(Events.COMPLETED, self.write, state="finished")

    def start(self, engine: Engine) -> None:
        self.began, self.started = time.monotonic(), time.strftime("%Y-%m-%d %H:%M")
        self.told: dict[str, Any] = {}
        if Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py") and not rank():  # else Python code ran it
            config, told = config_of(sys.argv[1:])
            with whole(self.path.with_suffix(".yaml")) as part:
                ConfigParser.export_config_file(config.get(), str(part), fmt="yaml", sort_keys=False, width=120)
            self.told = {**told, "config": self.path.with_suffix(".yaml").name}
        self.write(engine, "not finished")

    def write(self, engine: Engine, state: str) -> None:
        if rank():
            return
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()
        content: dict[str, Any] = {
            "run": self.path.stem,
            "state": state,
            "started": self.started,
            "seconds": round(time.monotonic() - self.began, 1),
            "device": f"{self.device.type}, {name}, {os.cpu_count()} cores, {platform.system()}",
            "peak_memory_gb": peak_memory(self.device),
            "versions": {"python": platform.python_version()} | {n: version(n) for n in ("torch", "monai", "numpy")},
            "left_out": list(self.left_out),
        }
        save_json(content | self.told, self.path)
