"""Tools that take turns (sides): each runs in its own process, with its own threads, caches and peak memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import fire
import numpy as np
import torch
from tumour.processes import cores, peak_memory


def command_line(measure: Callable, side: Callable) -> None:
    """The command line of a benchmark: `measure`, or, for a process that `Side` starts, `side` and its arguments."""
    fire.Fire({"side": side} if sys.argv[1:2] == ["side"] else measure)


class Side:
    """A process that does its work once per request.

    Args:
        module: passes its work to `serve`.
        arguments: of its command line.
    """

    def __init__(self, module: str, *arguments: Any) -> None:
        command = [sys.executable, "-m", module, "side", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def work(self) -> dict[str, Any]:
        """One turn: its `seconds`, the `peak_gb` of the process until now, and whatever else the work returns."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        # libraries may print other lines
        line = next((each for each in self.process.stdout if each.startswith('{"seconds"')), "")
        if not line:
            raise SystemExit(f"'{' '.join(map(str, self.process.args))}' failed; see its output above.")  # type: ignore[arg-type]
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve(work: Callable[[], dict[str, Any] | None]) -> None:
    """Work once per input line and answer with a line of JSON; all other output goes to stderr."""
    torch.set_num_threads(cores())  # nnU-Net sets them at import
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for _ in sys.stdin:
        began = time.perf_counter()
        measured = work() or {}
        measured = {"seconds": time.perf_counter() - began, "peak_gb": peak_memory(), **measured}
        print(json.dumps(measured), file=answers, flush=True)


def take_turns(module: str, sides: Sequence[str], rounds: int, *arguments: Any) -> dict[str, dict[str, list]]:
    """The answers of each side in each round, without a first round to warm up.

    The sides take turns, so that a slow minute of the machine affects all of them.
    """
    running = {name: Side(module, name, *arguments) for name in sides}
    measured: dict[str, dict[str, list]] = {name: {} for name in sides}
    for turn in range(rounds + 1):
        for name, side in running.items():
            answer = side.work()
            print(f"round {turn} of {rounds}, {name}: {answer['seconds']:.2f} s", file=sys.stderr, flush=True)
            for key, value in answer.items() if turn else ():
                measured[name].setdefault(key, []).append(value)
    for side in running.values():
        side.end()
    return measured


def ratio_of(values: Sequence[float], ours: Sequence[float]) -> str:
    """The median over the rounds of the ratio to our time."""
    return f"{np.median(np.divide(values, ours)):.2f}"
