"""Time from the command to the first training step on real patients, in the first and in a second run.

python -m benchmarks.start --data DIR [--cohort brats2018] [--patients 6]
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tumour.processes import cores

from benchmarks import nnunet, results, zoo
from benchmarks.machine import seconds_text
from benchmarks.patients import cases_of, folder_with
from benchmarks.sides import command_line, ratio_of
from tools.cohorts import cohort_named

SIDES = {
    "ours": "ours (`run training`, cache on disk)",
    "nnunet": "nnU-Net (fingerprint, plan, preprocess, train; second run: train)",
    "zoo": "model zoo's transforms, which check and cache nothing",
}

READY = "ready for the first step"


def side(name: str, data: str, cohort: str, work: str, again: str) -> None:
    """Prepare everything for the first step, then print READY."""
    folder = nnunet.home(work)
    if name == "ours":
        from ignite.engine import Events

        from benchmarks import ours

        where = {"ckpt_dir": str(folder / "models"), "output_dir": str(folder / "eval"), "cache": "disk"}
        parser = ours.config("neuroseg3d", cohort=cohort, dataset_dir=data, **where)
        trainer = parser.get_parsed_content("train::trainer")
        trainer.add_event_handler(Events.ITERATION_STARTED, print_ready_and_exit)
        trainer.run()
    elif name == "nnunet":
        if again == "first":
            nnunet.lay_out(folder, cases_of(cohort, data), cohort_named(cohort).label_values)
            nnunet.prepare(folder, ["plain"])
        made = nnunet.trainer(folder)
        made.on_train_start()
        next(made.dataloader_train)
    else:
        from torch.utils.data import DataLoader

        zoo.optimiser(zoo.network())
        next(iter(DataLoader(zoo.training_set(cases_of(cohort, data), 96), num_workers=2)))
    print_ready_and_exit()


def print_ready_and_exit() -> None:
    print(READY, flush=True)
    sys.exit(0)


def seconds_of(*arguments: str) -> float:
    """Seconds from the command until it prints READY."""
    command = [sys.executable, "-m", "benchmarks.start", "side", *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout
        ready = any(line.strip() == READY for line in process.stdout)
        seconds = time.perf_counter() - began
        process.communicate()
        if not ready or process.returncode:
            errors.seek(0)
            raise SystemExit(errors.read()[-4000:])
    return seconds


def measure(data: str, cohort: str = "brats2018", patients: int = 6, rounds: int = 5) -> None:
    """Measure all sides, with empty folders in each round, and write the table."""
    measured: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        few = str(folder_with(Path(scratch, "cases"), cases_of(cohort, data)[:patients]))
        for turn in range(rounds):
            for name in SIDES:
                work = Path(scratch, name)
                for again in ("first", "second"):
                    seconds = seconds_of(name, few, cohort, str(work), again)
                    measured[name, again].append(seconds)
                    done = f"round {turn + 1} of {rounds}, {name}, {again}"
                    print(f"{done}: {seconds:.1f} s", file=sys.stderr, flush=True)
                shutil.rmtree(work)
    rows = [
        {
            "side": title,
            "first, s": seconds_text(measured[name, "first"]),
            "ratio to ours": ratio_of(measured[name, "first"], measured["ours", "first"]),
            "second, s": seconds_text(measured[name, "second"]),
            "ratio to ours, second": ratio_of(measured[name, "second"], measured["ours", "second"]),
        }
        for name, title in SIDES.items()
    ]
    about = (
        f"{patients} real patients, {cores()} cores, {rounds} rounds; from the start of Python until network, "
        "optimizer and first batch are ready. Ours includes reading and checking every case; nnU-Net's own check is "
        "not included. Our second start is mostly importing PyTorch, MONAI and Ignite."
    )
    results.keep("start", "From the command to the first training step", about, rows, ["torch", "monai", "nnunetv2"])


if __name__ == "__main__":
    command_line(measure, side)
