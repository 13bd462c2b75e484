"""Sides that take turns: each a process of its own, so that each has its own threads, caches and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tumour.processes import cores


class Side:
    """A process that works once whenever it is asked.

    Args:
        module: has a `main` that hands its work to `serve`.
        arguments: of its command line.
    """

    def __init__(self, module: str, *arguments: Any) -> None:
        command = [sys.executable, "-m", module, "side", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def work(self) -> dict[str, Any]:
        """One turn: its `seconds`, and whatever else the work tells."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answers = (line for line in self.process.stdout if line.startswith('{"seconds"'))  # a library may print first
        line = next(answers, "")
        if not line:
            raise SystemExit(f"'{' '.join(map(str, self.process.args))}' failed; its lines above say why.")  # type: ignore[arg-type]
        return json.loads(line)

    def end(self) -> float:
        """End it; its peak memory in GB."""
        assert self.process.stdin
        self.process.stdin.close()
        _, _, usage = os.wait4(self.process.pid, 0)
        return usage.ru_maxrss / 2**20


def serve(work: Callable[[], dict[str, Any] | None]) -> None:
    """Work once for each line that comes in and answer with a line of JSON; whatever else is printed goes to stderr."""
    torch.set_num_threads(cores())  # nnU-Net sets them at import
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for _ in sys.stdin:
        began = time.perf_counter()
        told = work() or {}
        print(json.dumps({"seconds": time.perf_counter() - began, **told}), file=answers, flush=True)


def take_turns(module: str, sides: Sequence[str], rounds: int, *arguments: Any) -> dict[str, dict[str, list]]:
    """What each side told in each round after one that warms it, and `peak_gb`.

    A slow minute of the machine hits all sides alike.
    """
    running = {name: Side(module, name, *arguments) for name in sides}
    told: dict[str, dict[str, list]] = {name: {} for name in sides}
    for turn in range(rounds + 1):
        for name, side in running.items():
            answer = side.work()
            print(f"round {turn} of {rounds}, {name}: {answer['seconds']:.2f} s", file=sys.stderr, flush=True)
            for key, value in answer.items() if turn else ():
                told[name].setdefault(key, []).append(value)
    for name, side in running.items():
        told[name]["peak_gb"] = [side.end()]
    return told


def ratio_of(values: Sequence[float], ours: Sequence[float]) -> str:
    """How many times as long as ours, the median over the rounds."""
    return f"{np.median(np.divide(values, ours)):.2f}"
