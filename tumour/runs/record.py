"""Record a run: settings, versions, device, seconds, peak memory, and the cases that were used or left out."""

import os
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from ignite.engine import Engine, Events
from tumour.files import save_json, save_text
from tumour.processes import gather, peak_memory, rank
from tumour.runs.finished import FinishedCases
from tumour.runs.layers import config_of, started_by_monai

MAIN = "of the main process"
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in C, as PyYAML has it on most systems
STYLE: dict[str, Any] = {"sort_keys": False, "width": 120}  # of a recorded config


def memory_of(device: torch.device) -> dict[str, float]:
    """The peak memory of this process until now, in GB, by kind of memory."""
    main = peak_memory()
    peak = {} if main is None else {MAIN: round(main, 2)}
    if device.type == "cuda":
        peak["on the GPU"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    return peak


class RunRecord:
    """Handler that writes the record of a run when it starts, after every epoch and at the end.

    The merged config is written to a file with the same name that ends in `.yaml`. MONAI passes neither the config
    files nor the options of the command line to the config, and saves a merged config only with experiment tracking; so
    both are read again from the command line. They are not recorded for runs that Python code starts.

    Args:
        path: JSON file to write.
        device: the device of the network.
        cases: object with `left_out`, the cases left out until now, and, if cases are read one after the other, `done`
            and `notes`.
        finished: where finished cases are kept, for a run that continues if it was interrupted.
    """

    def __init__(
        self, path: str, device: torch.device | str, cases: Any, finished: FinishedCases | None = None
    ) -> None:
        self.path, self.device, self.cases, self.finished = Path(path), torch.device(device), cases, finished

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        if self.finished is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write, state="not finished")
        engine.add_event_handler(Events.COMPLETED, self.write, state="finished")

    def start(self, engine: Engine) -> None:
        self.began, self.started = time.monotonic(), time.strftime("%Y-%m-%d %H:%M")
        self.settings: dict[str, Any] = {}
        if started_by_monai() and not rank():
            config, changes = config_of(sys.argv[1:])
            path = self.path.with_suffix(".yaml")
            save_text(yaml.dump(config.get(), Dumper=DUMPER, **STYLE), path)
            self.settings = {**changes, "config": path.name}
        self.write(engine, "not finished")

    def keep(self, engine: Any) -> None:
        """Keep the results of a case that was not left out."""
        assert self.finished is not None
        for case in (str(item["case"]) for item in engine.state.batch):
            self.finished.add(notes=[asdict(note) for note in self.cases.notes if note.case == case])
            self.finished.keep(case)

    def write(self, engine: Engine, state: str) -> None:
        cases, left_out, notes = ([*getattr(self.cases, name, [])] for name in ("done", "left_out", "notes"))
        if state == "finished":
            cases, left_out, notes = gather(cases), list(dict.fromkeys(gather(left_out))), gather(notes)
        if rank():
            return
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()
        content: dict[str, Any] = {
            "run": self.path.stem,
            "state": state,
            "started": self.started,
            "seconds": round(time.monotonic() - self.began, 1),
            "device": f"{self.device.type}, {name}, {os.cpu_count()} cores, {platform.system()}",
            "peak_memory_gb": memory_of(self.device),
            "versions": {"python": platform.python_version()} | {n: version(n) for n in ("torch", "monai", "numpy")},
            "cases": [case.record() for case in cases],
            "left_out": [asdict(case) for case in left_out],
            "notes": [asdict(note) for note in notes],
        }
        save_json(content | self.settings, self.path)
