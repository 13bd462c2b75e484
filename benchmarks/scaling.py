"""How time and peak memory grow with the number of cases, the workers and the size of a scan.

python -m benchmarks.scaling [--cases "(10, 100, 1000)"] [--folder DIR]

The cases are copies of two dozen synthetic patients of 64³, each with one changed voxel per modality: no two are equal.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from tqdm import tqdm

from benchmarks import ours, results
from benchmarks.machine import measured
from tools.cohorts import cohort_named
from tools.command import flags, run_command
from tools.patients.phantom import make_patient
from tools.patients.synthetic import make_patients, write_patient

COHORT, STEPS = "brats2021", 50


def write_cases(folder: Path, cases: int, distinct: int = 24) -> None:
    """Write the cases that do not exist yet."""
    patients: list = []
    for index in tqdm(range(cases), desc="cases", disable=None):
        case = f"BraTS2021_{index:05d}"
        if len(patients) < distinct:
            patients.append(make_patient(0, index, (64, 64, 64)))
        if (folder / case).is_dir():
            continue
        images, label = patients[index % len(patients)]
        own = {name: image.copy() for name, image in images.items()}
        for image in own.values():
            place = tuple(np.argwhere(image > 0)[index])
            image[place] += 1 + index // 100
        write_patient(folder, case, own, label, cohort_named(COHORT))


def bundle(run_id: str, **settings: Any) -> list[str]:
    """The command of a run of NeuroSeg3D."""
    return run_command(run_id, args_file="bundles/neuroseg3d/args.yaml", cohort=COHORT, **settings)


def row(what: str, seconds: float, memory: float | None = None) -> dict[str, str]:
    """A row of the table."""
    return {"what": what, "seconds": f"{seconds:.1f}", "peak GB": "" if memory is None else f"{memory:.2f}"}


def measure(cases: Sequence[int] = (10, 100, 1000), folder: str = "", **_: Any) -> None:
    """Measure all and write the table; options of other benchmarks are ignored."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in cases:
            data, out = Path(folder or scratch, f"cases{number}"), Path(scratch, f"out{number}")
            write_cases(data, number)
            check = [sys.executable, "-m", "tools.check"]
            check += flags({"cohort": COHORT, "dataset_dir": data, "output": out})
            rows.append(row(f"checking {number} cases", *measured(check)))
            where = {"dataset_dir": data, "ckpt_dir": out / "models", "output_dir": out, "cache": "disk", "workers": 1}
            short = {"patch_size": "[64, 64, 64]", "epochs": 2, "iterations_per_epoch": STEPS, "val_interval": 2}
            short["train::trainer::max_epochs"] = 1  # it ends before it validates
            what = f"training for {STEPS} steps on {number} cases, after checking them"
            rows.append(row(what, *measured(bundle("training", **where, **short))))
        for workers in (1, 2):
            rows.append(row(f"100 patches of 64³ with {workers} worker(s)", _patches(out, data, workers)))
        for edge in (96, 192):
            make_patients(Path(scratch, f"scan{edge}"), cases=1, size=edge)
            where = {"dataset_dir": Path(scratch, f"scan{edge}"), "ckpt_dir": "bundles/neuroseg3d/weights"}
            run = bundle("inferring", **where, output_dir=Path(scratch, f"scan{edge}-out"))
            rows.append(row(f"segmenting a synthetic scan of {edge}³, including the start", *measured(run)))
    about = "Synthetic cases of 64³, `neuroseg3d`, cache on disk, one run each; memory of the largest process."
    results.keep("scaling", "Growth with cases, workers and voxels", about, rows, ["torch", "monai", "nibabel"])


def _patches(out: Path, data: Path, workers: int) -> float:
    """Seconds for 100 patches from the loader of a training, with its cache on disk."""
    parser = ours.config("neuroseg3d", cohort=COHORT, dataset_dir=str(data), output_dir=str(out), cache="disk")
    parser["patch_size"], parser["workers"], parser["iterations_per_epoch"] = [64] * 3, workers, 60
    torch.set_num_threads(1)
    batches = iter(parser.get_parsed_content("train::dataloader"))
    for _ in range(10):
        next(batches)
    began = time.perf_counter()
    for _ in range(50):
        next(batches)
    return time.perf_counter() - began


if __name__ == "__main__":
    fire.Fire(measure)
