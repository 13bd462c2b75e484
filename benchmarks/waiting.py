"""The fraction of a training in which the network waits for data.

python -m benchmarks.waiting --data DIR [--cohort brats2018] [--bundle neuroseg3d] [--steps 60]
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import fire
from ignite.engine import Events
from tumour.processes import cores

from benchmarks import ours, results
from benchmarks.patients import cases_of, folder_with

WARM_UP = 5  # steps that are not counted
CASES = 8


def wait_and_step(
    data: str, cohort: str, bundle: str, steps: int, layer: str = "", **settings: Any
) -> tuple[float, float]:
    """Fraction of the time spent waiting for data, and seconds per step, of a training with a config file on top."""
    with tempfile.TemporaryDirectory() as scratch:
        where = {"ckpt_dir": f"{scratch}/models", "output_dir": f"{scratch}/eval"}
        cases = folder_with(Path(scratch, "cases"), cases_of(cohort, data)[:CASES])
        parser = ours.config(bundle, layer, cohort=cohort, dataset_dir=str(cases), epochs=1, **where, **settings)
        parser["iterations_per_epoch"] = steps
        trainer = parser.get_parsed_content("train::trainer")
        waited = asked = began = ended = 0.0

        @trainer.on(Events.GET_BATCH_STARTED)
        def ask() -> None:
            nonlocal asked
            asked = time.perf_counter()

        @trainer.on(Events.GET_BATCH_COMPLETED)
        def receive() -> None:
            nonlocal waited, began
            if trainer.state.iteration >= WARM_UP:
                began = began or asked
                waited += time.perf_counter() - asked

        @trainer.on(Events.ITERATION_COMPLETED)
        def complete() -> None:
            nonlocal ended
            ended = time.perf_counter()

        trainer.run()  # and the validation of the last epoch
        seconds = ended - began
        return waited / seconds, seconds / (steps - WARM_UP)


def measure(data: str, cohort: str = "brats2018", bundle: str = "neuroseg3d", steps: int = 60) -> None:
    """Measure and write the table."""
    share, seconds = wait_and_step(data, cohort, bundle, steps)
    row = {
        "training": f"`{bundle}`, defaults",
        "ms per step": f"{1000 * seconds:.0f}",
        "waits for data": f"{share:.1%}",
    }
    about = f"Up to {CASES} real cases, {steps} steps after reading, {cores()} cores, one run."
    results.keep("waiting", "Waiting for data", about, [row], ["torch", "monai"])


if __name__ == "__main__":
    fire.Fire(measure)
