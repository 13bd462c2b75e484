"""Record a run: settings, versions, device, seconds, peak memory, its cases and those left out."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from tumour.files import atomic_write, save_json
from tumour.processes import gather, rank
from tumour.runs.layers import command_of_run, config_of

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
        cases: has `left_out`, the cases left out until now, and, where they are read one by one, `done`.
    """

    def __init__(self, path: str, device: torch.device | str, cases: Any) -> None:
        self.path, self.device, self.cases = Path(path), torch.device(device), cases

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write, state="not finished")
        engine.add_event_handler(Events.COMPLETED, self.write, state="finished")

    def start(self, engine: Engine) -> None:
        self.began, self.started = time.monotonic(), time.strftime("%Y-%m-%d %H:%M")
        self.told: dict[str, Any] = {}
        command = command_of_run()
        if command is not None and not rank():
            config, told = config_of(command)
            with atomic_write(self.path.with_suffix(".yaml")) as part:
                ConfigParser.export_config_file(config.get(), str(part), fmt="yaml", sort_keys=False, width=120)
            self.told = {**told, "config": self.path.with_suffix(".yaml").name}
        self.write(engine, "not finished")

    def write(self, engine: Engine, state: str) -> None:
        cases, left_out = ([*getattr(self.cases, name, [])] for name in ("done", "left_out"))
        if state == "finished":
            cases, left_out = gather(cases), list(dict.fromkeys(gather(left_out)))
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
            "cases": [case.record() for case in cases],
            "left_out": [asdict(each) for each in left_out],
        }
        save_json(content | self.told, self.path)
