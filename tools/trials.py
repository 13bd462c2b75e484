"""Train and score the same with one thing changed, and tell the difference in one table.

python -m tools.trials bundles --output DIR --cohort NAME --dataset_dir DIR            the bundles beside each other
python -m tools.trials settings --output DIR --cohort NAME --dataset_dir DIR --bundle neuroseg3d --over attention
python -m tools.trials recipes --output DIR --cohort NAME --dataset_dir DIR --minutes 5    equal time, several seeds

All other options go to every run alike. A trial that is done is not run again, so a stopped comparison goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tumour.errors import InputError, command_line, one_of
from tumour.files import save_json, whole
from tumour.scores.tables import interval_text, mean_interval

from tools.compare import differences, read_run, significance
from tools.networks import cost
from tools.show import merged

OVER = {  # what can be compared within a bundle: its id and the values
    "attention": ("network_def::network::attention", ["spatial", "channel", "cbam", "none"]),
    "size": ("size", ["fast", "full"]),
    "loss": ("loss", ["@losses::dice_bce", "@losses::dice", "@losses::focal_tversky", "@losses::cc_dice_bce"]),
}
RECIPES = {  # the bundle that each is laid over here; the first is ours, without a recipe
    "": "neuroseg3d",
    "neuroseg3d_brats2021": "neuroseg3d",
    "attention_dropout_brats2020": "neuroseg3d",
    "metastases_brats2024": "resunet",
    "unet_dicece_brats2023": "unet3d",
    "attention_torchio_brats2020": "attention_unet",
}
EPOCHS, PACE = 4, 10  # of a training of so many minutes; steps of an epoch that measure how fast it is


def args_of(bundle: str, recipe: str = "") -> list[str]:
    """The args file of a bundle, and the config file of a recipe that goes on top of it."""
    return [f"bundles/{bundle}/args.yaml", *([f"bundles/common/recipes/{recipe}.yaml"] if recipe else [])]


def run(run_id: str, folder: Path, args_files: Sequence[str], settings: Mapping[str, Any]) -> float:
    """Run a bundle with its results below a folder; the peak memory of its main process in GB."""
    files = {"args_file": args_files[0], "+config_file": list(args_files[1:])}
    where = {**files, "ckpt_dir": folder / "models", "output_dir": folder / "results"}
    flags = [str(part) for name, value in {**where, **settings}.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, *flags]
    _, status, usage = os.wait4(subprocess.Popen(command).pid, 0)
    if status:
        raise InputError(f"'{' '.join(command)}' failed; its lines above say why.")
    return usage.ru_maxrss / 2**20


def trial(folder: Path, args_files: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """Train and score one; seconds a step and peak memory (GB) of the training."""
    done = folder / "trial.json"
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))
    peak = run("training", folder, args_files, settings)
    run("evaluating", folder, args_files, settings)
    log = pd.read_csv(folder / "results" / "training.csv")
    steps = merged(*args_files)
    steps.update(dict(settings))
    iterations = int(steps.get_parsed_content("iterations_per_epoch"))
    seconds = float(log["seconds"].median()) / iterations
    told = {"seconds a step": seconds, "steps": iterations * len(log), "minutes": log["seconds"].sum() / 60}
    told["peak GB"] = peak
    save_json(told, done)
    return told


def steps_in(minutes: float, folder: Path, args_files: Sequence[str], settings: Mapping[str, Any]) -> int:
    """How many steps a training takes in so many minutes, reading and validation apart; measured once a folder."""
    log = folder / "results" / "training.csv"
    if not log.is_file():
        short = {"epochs": EPOCHS, "iterations_per_epoch": PACE, "val_interval": EPOCHS + 1}
        run("training", folder, args_files, {**settings, **short})
    seconds = pd.read_csv(log)["seconds"].iloc[1:].mean() / PACE  # in the first epoch the loader's processes start
    return max(round(60 * minutes / seconds), EPOCHS)


def markdown(frame: pd.DataFrame) -> list[str]:
    """A table of strings, its index first, as lines."""
    lines = ["| | " + " | ".join(frame.columns) + " |", "|" + " --- |" * (len(frame.columns) + 1)]
    rows = zip(frame.index, frame.values, strict=True)
    return lines + [f"| {name} | " + " | ".join(values) + " |" for name, values in rows]


def row_of(folder: Path, bundle: str, settings: Mapping[str, Any], told: Mapping[str, float]) -> dict[str, str]:
    """A line of the table."""
    parameters, operations = cost(f"bundles/{bundle}/args.yaml", **settings)
    row = {"parameters, M": f"{parameters:.2f}", "multiply-adds of 96³, G": f"{operations:.1f}"}
    row |= {"seconds a step": f"{told['seconds a step']:.2f}", "peak GB": f"{told['peak GB']:.1f}"}
    scores = json.loads((folder / "results" / "scores" / "summary.json").read_text(encoding="utf-8"))["scores"]
    for region, metrics in scores.items():
        if metrics["kind"] == "region":
            for name, heading, form in (("dice", "Dice", ".3f"), ("hd95", "HD95", ".1f")):
                m = metrics[name]
                row[f"{heading} {region}"] = interval_text(m["mean"], m["interval_low"], m["interval_high"], form)
    return row


def compared(output: str, trials: Mapping[str, tuple[str, Mapping[str, Any]]]) -> str:
    """Run all trials, each a bundle and its settings by name; the table, and each but the first less the first."""
    folders = {name: Path(str(output)) / name.replace("@losses::", "") for name in trials}
    rows = {}
    for name, (bundle, settings) in trials.items():
        print(f"\n== {name}", flush=True)
        told = trial(folders[name], args_of(bundle), settings)
        rows[name] = row_of(folders[name], bundle, settings, told)
    lines = markdown(pd.DataFrame.from_dict(rows, orient="index"))
    first, *others = trials
    for name in others:
        a, b = (str(folders[each] / "results" / "scores") for each in (first, name))
        paired = differences(a, b, "dice")
        lines += ["", f"Dice, {name} less {first}:", significance(paired).to_string(float_format="{:.4f}".format)]
    return written(Path(str(output)), ["Means with 95% bootstrap intervals.", "", *lines])


def written(folder: Path, lines: Sequence[str]) -> str:
    """The text of these lines, which stands in the folder's comparison.md."""
    text = "\n".join(lines)
    with whole(folder / "comparison.md") as part:
        part.write_text(text + "\n", encoding="utf-8")
    return text


def bundles(output: str, cohort: str, dataset_dir: str, **settings: Any) -> str:
    """Compare the bundles, the first that of `unet3d`."""
    names = sorted((path.parent.name for path in Path("bundles").glob("*/args.yaml")), key=lambda n: (n != "unet3d", n))
    given = {"cohort": cohort, "dataset_dir": dataset_dir, **settings}
    return compared(output, {name: (name, given) for name in names})


def settings(output: str, cohort: str, dataset_dir: str, bundle: str, over: str, **settings: Any) -> str:
    """Compare the values of one setting of a bundle: `attention`, `size` or `loss`."""
    name, values = one_of(OVER, over, setting="over")
    given = {"cohort": cohort, "dataset_dir": dataset_dir, **settings}
    return compared(output, {value: (bundle, {**given, name: value}) for value in values})


def mean_dice(folder: Path) -> pd.Series:
    """The mean Dice over the regions of each test case of a trial."""
    rows = read_run(str(folder / "results"))[0]
    return rows[rows["kind"] == "region"]["dice"].groupby("case").mean()


def recipes(
    output: str, cohort: str, dataset_dir: str, minutes: float, seeds: Sequence[int] = (0, 1, 2), **settings: Any
) -> str:
    """Compare our default and the recipes after the same time on this machine; each seed splits the patients anew.

    Args:
        output: folder for the trials and comparison.md.
        cohort: the data set's name.
        dataset_dir: the data set's folder.
        minutes: of training alone, without reading and validation.
        seeds: one training of each recipe a seed.
        settings: options of every run.
    """
    folder, told, dice = Path(str(output)), {}, {}
    given = {"cohort": cohort, "dataset_dir": dataset_dir, **settings}
    names = {recipe: recipe or f"{bundle}, our default" for recipe, bundle in RECIPES.items()}
    for seed in seeds:  # seeds in the outer loop: what is done can be compared
        for recipe, bundle in RECIPES.items():
            print(f"\n== {names[recipe]}, seed {seed}", flush=True)
            args_files, own = args_of(bundle, recipe), folder / (recipe or "default")
            steps = steps_in(minutes, own / "pace", args_files, given)
            budget = {"epochs": EPOCHS, "iterations_per_epoch": max(steps // EPOCHS, 1), "val_interval": EPOCHS}
            told[recipe, seed] = trial(own / f"seed{seed}", args_files, {**given, **budget, "seed": seed})
            dice[recipe, seed] = mean_dice(own / f"seed{seed}")
    scores = pd.concat(dice, names=["recipe", "seed", "case"]).unstack("recipe")
    runs, rows = pd.DataFrame(told).T, {}
    for recipe, bundle in RECIPES.items():
        each, less = runs.loc[recipe], (scores[recipe] - scores[""]).to_numpy()
        rows[names[recipe]] = {
            "bundle": bundle,
            "steps": f"{each['steps'].iloc[0]:.0f}",
            "minutes": ", ".join(f"{value:.1f}" for value in each["minutes"]),
            "peak GB": f"{each['peak GB'].max():.1f}",
            "mean Dice": interval_text(scores[recipe].mean(), *mean_interval(scores[recipe].to_numpy())),
            "each seed": ", ".join(f"{value:.3f}" for value in scores[recipe].groupby("seed").mean()),
            "less ours": interval_text(less.mean(), *mean_interval(less)) if recipe else "",
        }
    head = f"{minutes:g} minutes of training, {len(seeds)} seeds, {len(scores)} test scans; 95% bootstrap intervals."
    return written(folder, [head, "", *markdown(pd.DataFrame.from_dict(rows, orient="index"))])


def main() -> None:
    command_line({"bundles": bundles, "settings": settings, "recipes": recipes}, "tools.trials")


if __name__ == "__main__":
    main()
