"""Seconds and peak memory of the check and of one epoch on many small cases.

python -m benchmarks.many_cases [--cases 1500] [--folder DIR]

The patients are two dozen synthetic ones of 64³, each copied with a voxel of its own per modality: no two are alike.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fire
import numpy as np
from tqdm import tqdm

from benchmarks.machine import machine
from tools.conventions import convention
from tools.phantom import make_patient
from tools.synthetic import write_patient


def write_cases(folder: Path, cases: int, distinct: int = 24) -> None:
    """Write the cases; those that are there stay."""
    cohort = convention("brats2021")
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
        write_patient(folder, case, own, label, cohort)


def measured(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak memory in GB of the largest process, and what a command printed."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
    seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, done.stdout


def main(cases: int = 1500, folder: str | None = None) -> None:
    """Measure the check, then one epoch of 150 steps with the cases cached on disk."""
    print(machine("torch", "monai", "nibabel"))
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(folder or scratch, "cases"), Path(scratch)
        write_cases(data, cases)
        seconds, memory, _ = measured(
            ["tools.check", "--cohort=brats2021", f"--dataset_dir={data}", f"--output={out / 'results'}"]
        )
        counts = json.loads((out / "results" / "check.json").read_text())["counts"]
        print(f"check: {seconds:.0f} s, {memory:.2f} GB at the peak, {counts}", flush=True)
        settings = {
            "cohort": "brats2021",
            "dataset_dir": data,
            "ckpt_dir": out / "models",
            "output_dir": out / "results",
        }
        settings |= {"patch_size": "[64, 64, 64]", "epochs": 1, "val_interval": 1, "cache": "disk", "workers": 0}
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        flags = [part for argument in arguments for part in argument.split("=", 1)]
        seconds, memory, printed = measured(
            ["monai.bundle", "run", "training", "--args_file", "bundles/neuroseg3d/args.yaml", *flags]
        )
        print(f"split and one epoch: {seconds:.0f} s, {memory:.2f} GB at the peak")
        print("\n".join(line for line in printed.splitlines() if "cases used" in line or "epoch 1" in line))


if __name__ == "__main__":
    fire.Fire(main)
