"""Train many small networks at once on one GPU, for trials and cross-validations.

python -m benchmarks.many_networks --data DIR [--cohort brats2021] [--output DIR] [--trials FILE] [--seconds 420]

Each trial is trained once per fold, and scored on the patients of the fold. Below `output` are the weights,
TRIAL/foldN/model.pt with their settings, and scores.json. On a CPU it runs too, slowly, to try it out; a GPU must
support bfloat16 and have Triton, which PyTorch's builds for CUDA bring.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tumour.cases.parts import split
from tumour.files import save_json

from benchmarks import ours
from benchmarks.many_networks.networks import Training, train
from benchmarks.many_networks.trials import Trial, read_trials
from benchmarks.many_networks.volumes import read
from benchmarks.patients import cases_of
from tools.command_line import command_line
from tools.tables import markdown

TRIALS = str(Path(__file__).with_name("trials.yaml"))


def row_of(name: str, record: Mapping[str, Any]) -> dict[str, str]:
    """The row of a trial in the table: the mean over the cases of all folds."""
    networks, cases = record["networks"].values(), record["dice"].values()
    row = {"trial": name, "steps": " + ".join(str(each["steps"]) for each in networks)}
    row["loss"] = f"{np.mean([each['loss'] for each in networks]):.3f}"
    row["mean Dice"] = f"{np.mean([list(case.values()) for case in cases]):.3f}"
    return row | {region: f"{np.mean([case[region] for case in cases]):.3f}" for region in next(iter(cases))}


def main(
    data: str,
    cohort: str = "brats2021",
    output: str = "many-networks",
    trials: str = TRIALS,
    seconds: float = 420,
    folds: int = 2,
    everyone: bool = False,
    streams: int = 4,
    device: str = "",
) -> str:
    """Train and score the networks; the table.

    Args:
        data: folder of the data set.
        cohort: name of the data set.
        output: folder for weights and scores.
        trials: YAML file of the trials.
        seconds: of training, for all networks together, without reading and scoring.
        folds: number of folds.
        everyone: also train each trial on all patients; its weights are in TRIAL/all.
        streams: of the GPU, on which the networks run side by side.
        device: default is cuda, or cpu if there is no GPU.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    todo, cases = read_trials(trials), cases_of(cohort, data)
    volumes = {"z": read(ours.config(next(iter(todo.values())).bundle, cohort=cohort, device=str(where)), cases, where)}
    if any(trial.data == "robust" for trial in todo.values()):
        volumes["robust"] = volumes["z"].robust()
    held_out = [split(cases, fold, test_share=0, seed=0, folds=folds)["validate"] for fold in range(folds)]
    parts = {f"fold{fold}": [cases.index(case) for case in part] for fold, part in enumerate(held_out)}
    parts |= {"all": []} if everyone else {}
    lanes = itertools.cycle([torch.cuda.Stream() for _ in range(streams)] if where.type == "cuda" else [None])

    def training(trial: Trial, test: Sequence[int]) -> Training:
        return Training(trial, cohort, volumes[trial.data], test, next(lanes))

    built = {name: {part: training(trial, test) for part, test in parts.items()} for name, trial in todo.items()}
    everything = [each for trainings in built.values() for each in trainings.values()]
    began = time.perf_counter()
    train(everything, seconds)
    for name, trainings in built.items():  # before anything else can fail
        for part, each in trainings.items():
            each.save(Path(output, name, part))
    steps = sum(each.steps for each in everything)
    print(f"{len(everything)} networks, {steps} steps, {1000 * (time.perf_counter() - began) / steps:.2f} ms per step")
    rows: list[dict[str, str]] = []
    record: dict[str, Any] = {}
    for name, trainings in built.items():
        dice = {case: values for each in trainings.values() for case, values in each.score().items()}
        networks = {part: {"steps": each.steps, "loss": each.average_loss()} for part, each in trainings.items()}
        record[name] = {"options": asdict(todo[name]), "networks": networks, "dice": dice}
        save_json(record, Path(output, "scores.json"))
        rows.append(row_of(name, record[name]))
    return markdown(rows)


if __name__ == "__main__":
    command_line(main, "python -m benchmarks.many_networks")
