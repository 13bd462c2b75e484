"""Mean Dice of held-out real patients after the same CPU time of training, with several seeds.

python -m benchmarks.quality --data DIR [--cohort brats2018] [--work DIR] [--minutes "(5, 15)"] [--seeds "(0, 1, 2)"]

Each training runs on one core (`--threads`), in parallel on all cores; `minutes` are those of two cores. Our number of
steps is set in advance from our speed, so the other tools run after ours and get the time that ours took if it is more.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.data import DataLoader, list_data_collate
from monai.utils import set_determinism
from tumour.files import save_json
from tumour.processes import cores
from tumour.scores.tables import mean_text

from benchmarks import nnunet, results, zoo
from benchmarks.patients import cases_of, folder_with, parts_of
from benchmarks.sides import command_line
from tools import trials
from tools.bundles import files_of
from tools.cohorts import cohort_named
from tools.compare import common, mean_dice
from tools.score import score

SIDES = {
    "ours": "ours (`neuroseg3d`, defaults: 96³ patches)",
    "ours-64": "ours on 64³ patches",
    "nnunet-96": "nnU-Net 3d_fullres, its network and training, 96³ patches",
    "nnunet-64": "nnU-Net on 64³ patches",
    "zoo-96": "model zoo's recipe, 96³ patches",
    "zoo-64": "model zoo's recipe on 64³ patches",
}


def side(name: str, data: str, cohort: str, work: str, seconds: float, seed: int) -> None:
    """Train for a CPU time on the cores of this process, then segment and score the test patients."""
    torch.set_num_threads(cores())
    set_determinism(seed)
    folder = nnunet.home(work, workers=1) / "quality" / f"{name}-{seconds:.0f}-{seed}"
    parts, values = parts_of(cohort, data, seed), cohort_named(cohort).label_values
    kind, _, patch = name.partition("-")
    if kind == "ours":
        given = {"cohort": cohort, "dataset_dir": data, "seed": seed}
        return _ours(
            folder, given, seconds, {"patch_size": str([int(patch)] * 3), "window": "[96, 96, 96]"} if patch else {}
        )
    logs = folder.parent.glob(f"ours*-{seconds:.0f}-{seed}/results/training.csv")
    seconds = max([seconds, *map(taken, logs)])  # CPU time of all cores
    maps = folder / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    steps = {"nnunet": _nnunet, "zoo": _zoo}[kind](Path(work), parts, seconds / cores(), int(patch), maps)
    for path in maps.glob("*.nii.gz"):  # classes -> values of the data set
        image: Any = nib.load(path)  # type: ignore[attr-defined]
        label = np.asarray(values, np.uint8)[np.asanyarray(image.dataobj).astype(int)]
        nib.save(nib.Nifti1Image(label, image.affine), path)  # type: ignore[attr-defined]
    reference = folder_with(folder / "test", parts["test"])
    score(str(reference), str(maps), cohort, str(folder / "results" / "scores"))
    save_json({"steps": steps, "seconds": seconds, "cores": cores()}, folder / "trial.json")


def taken(log: Path) -> float:
    """CPU-seconds of our training, without validation."""
    return float(pd.read_csv(log)["seconds"].sum()) * cores()


def _ours(folder: Path, given: dict[str, Any], seconds: float, patch: dict[str, str]) -> None:
    """Train with the commands of the bundle; its measured speed sets the number of steps."""
    given = files_of("neuroseg3d") | given
    train = given | patch
    each = trials.steps_in(seconds / cores() / 60, folder / "pace", train) // trials.EPOCHS
    budget = {"epochs": trials.EPOCHS, "val_interval": trials.EPOCHS, "iterations_per_epoch": each}
    trials.run("training", folder, {**train, **budget})
    trials.run("evaluating", folder, given)
    seconds = taken(folder / "results" / "training.csv")
    save_json({"steps": each * trials.EPOCHS, "seconds": seconds, "cores": cores()}, folder / "trial.json")


def _nnunet(work: Path, parts: dict, seconds: float, patch: int, maps: Path) -> int:
    """Train with the steps of its trainer; its learning rate falls with time instead of epochs."""
    made = nnunet.trainer(work, patch=patch, train=[case.name for case in parts["train"]])
    loader, _ = made.get_dataloaders()
    steps, began = 0, time.monotonic()
    while (spent := (time.monotonic() - began) / seconds) < 1:
        for group in made.optimizer.param_groups:
            group["lr"] = made.initial_lr * (1 - spent) ** 0.9
        made.train_step(next(loader))
        steps += 1
    loader._finish()
    inputs = [list(case.images) for case in parts["test"]]
    outputs = [str(maps / case.name) for case in parts["test"]]
    nnunet.predictor(made).predict_from_files_sequential(inputs, outputs)
    return steps


def _zoo(work: Path, parts: dict, seconds: float, patch: int, maps: Path) -> int:
    """Train with its loss and optimizer, one case per step."""
    network, loss = zoo.network(), zoo.loss()
    adam = zoo.optimiser(network)
    dataset = zoo.training_set(parts["train"], patch)
    steps, began = 0, time.monotonic()
    while (spent := (time.monotonic() - began) / seconds) < 1:
        for batch in DataLoader(dataset, batch_size=1, shuffle=True, num_workers=1, collate_fn=list_data_collate):
            for group in adam.param_groups:
                group["lr"] = 1e-4 * (1 + np.cos(np.pi * min(spent, 1))) / 2
            adam.zero_grad()
            loss(network(batch["image"]), batch["label"]).backward()
            adam.step()
            steps += 1
            if (spent := (time.monotonic() - began) / seconds) >= 1:
                break
    network.eval()
    for case in parts["test"]:
        zoo.segment(network, case, (96,) * 3, maps / f"{case.name}.nii.gz")
    return steps


def measure(
    data: str,
    cohort: str = "brats2018",
    work: str = nnunet.WORK,
    minutes: Sequence[float] = (5, 15, 45),
    seeds: Sequence[int] = (0, 1, 2),
    sides: Sequence[str] = tuple(SIDES),
    threads: int = 1,
) -> None:
    """Run all unfinished trainings with `threads` cores each, and write one table per budget."""
    folder = nnunet.home(work)
    nnunet.ready(folder, cases_of(cohort, data), cohort_named(cohort).label_values)
    (folder / "quality").mkdir(exist_ok=True)
    own = list(map(str, sorted(os.sched_getaffinity(0))))
    groups = [",".join(own[first : first + threads]) for first in range(0, len(own) - threads + 1, threads)]
    free: Queue[str] = Queue()
    for group in groups:
        free.put(group)
    sizes = {kind: len(part) for kind, part in parts_of(cohort, data, seeds[0]).items()}

    def one(name: str, seed: int, seconds: float) -> None:
        mine = free.get()
        try:
            train(folder, name, data, cohort, seconds, seed, mine)
        finally:
            free.put(mine)

    for budget in minutes:
        with ThreadPoolExecutor(len(groups)) as pool:
            for job in [pool.submit(one, name, seed, budget * 120) for name in sides for seed in seeds]:
                job.result()
        write_table(folder, budget, seeds, sides, sizes)


def train(folder: Path, name: str, data: str, cohort: str, seconds: float, seed: int, on: str) -> None:
    """Train and score a side on these cores, unless it is done."""
    done = folder / "quality" / f"{name}-{seconds:.0f}-{seed}"
    if (done / "trial.json").is_file():
        return
    shutil.rmtree(done, ignore_errors=True)
    place = folder
    if name.startswith("nnunet"):  # which keeps one split per data set
        place = folder / f"core{on}"
        if not place.is_dir():
            (place / "preprocessed").mkdir(parents=True)
            shutil.copytree(folder / "preprocessed" / nnunet.DATASET, place / "preprocessed" / nnunet.DATASET)
            (place / "raw").symlink_to(folder / "raw")
            (place / "quality").symlink_to(folder / "quality")
    work = [name, data, cohort, str(place), str(seconds), str(seed)]
    command = ["taskset", "-c", on, sys.executable, "-m", "benchmarks.quality", "side", *work]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(len(on.split(",")))})


def write_table(
    folder: Path, minutes: float, seeds: Sequence[int], sides: Sequence[str], parts: Mapping[str, int]
) -> None:
    """Write the table of a budget."""
    runs = {name: {seed: folder / "quality" / f"{name}-{minutes * 120:.0f}-{seed}" for seed in seeds} for name in sides}
    trials_of = {
        name: [json.loads((run / "trial.json").read_text(encoding="utf-8")) for run in runs[name].values()]
        for name in sides
    }
    scores = {
        name: pd.concat({seed: mean_dice(run / "results" / "scores") for seed, run in runs[name].items()})
        for name in sides
    }
    dice, _ = common(pd.DataFrame(scores).rename_axis(["seed", "case"]))
    rows = []
    for name in sides:
        rows.append({
            "side": SIDES[name],
            "CPU-seconds": ", ".join(f"{each['seconds']:.0f}" for each in trials_of[name]),
            "steps": ", ".join(f"{each['steps']:.0f}" for each in trials_of[name]),
            "mean Dice": mean_text(dice[name].to_numpy()),
            "by seed": ", ".join(f"{each:.3f}" for each in dice[name].groupby("seed", sort=False).mean()),
            "lead of the first": mean_text((dice[sides[0]] - dice[name]).to_numpy()) if name != sides[0] else "",
        })  # fmt: skip
    cores_used = " or ".join(sorted({f"{each['cores']:.0f}" for trial in trials_of.values() for each in trial}))
    about = (
        f"Each training has the CPU time of {minutes:g} minutes on two cores, or that of ours if it took more, on "
        f"{cores_used} core(s), without reading, validation and preprocessing. {parts['train']} patients for training, "
        f"{parts['validate']} for validation (used for model selection by ours only), {parts['test']} for testing; "
        f"seed {', '.join(map(str, seeds))}, each with its own split. Mean over TC, WT and ET by the legacy rules, no "
        "mirroring; 95% bootstrap intervals over the test scans. The other tools use our patch sizes: with their own "
        "(128³; 224 x 224 x 144) only a few steps fit into the time."
    )
    title = f"Time to quality: {minutes:g} minutes"
    results.keep(f"quality-{minutes:g}", title, about, rows, ["torch", "monai", "nnunetv2"])


if __name__ == "__main__":
    command_line(measure, side)
