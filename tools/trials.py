"""Train and score variants that differ in one thing, and compare them in one table.

python -m tools trials bundles --output DIR --cohort NAME --dataset_dir DIR            all bundles
python -m tools trials settings --output DIR --cohort NAME --dataset_dir DIR --bundle neuroseg3d --over attention
python -m tools trials recipes --output DIR --cohort NAME --dataset_dir DIR --minutes 5    equal time, several seeds

All other options are passed to every run. Finished trials are not repeated: rerun the command to continue.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from monai.utils import ensure_tuple
from tumour.errors import OptionError, one_of
from tumour.files import save_json, save_text
from tumour.records import read_json, read_table
from tumour.runs.folders import Claim
from tumour.runs.layers import layers, merge
from tumour.runs.options import check_command
from tumour.runs.record import MAIN
from tumour.scores.tables import SUMMARY, interval_text, mean_text

from tools.bundles import bundles, files_in, files_of
from tools.command import failed, run_command, status_of
from tools.compare import common, differences, mean_dice, significance
from tools.networks import cost
from tools.started import hash_of, require_same_settings, settings_in
from tools.tables import markdown

OVER = {  # settings that can be compared within a bundle: the id and its values
    "attention": ("network_def::network::attention", ["spatial", "channel", "cbam", "none"]),
    "size": ("size", ["fast", "full"]),
    "loss": ("loss", ["@losses::dice_bce", "@losses::dice", "@losses::focal_tversky", "@losses::cc_dice_bce"]),
}
RECIPES = {  # each recipe and its bundle; the first is our default, without a recipe
    "": "neuroseg3d",
    "neuroseg3d_brats2021": "neuroseg3d",
    "attention_dropout_brats2020": "neuroseg3d",
    "metastases_brats2024": "resunet",
    "unet_dicece_brats2023": "unet3d",
    "attention_torchio_brats2020": "attention_unet",
}
EPOCHS = 4  # of a training whose time is fixed
PACE_STEPS = 10  # per epoch of the short training that measures the speed


def command_of(run_id: str, folder: Path, options: Mapping[str, Any]) -> list[str]:
    """The command that runs a bundle with its models and results below a folder."""
    return run_command(run_id, **{**options, "ckpt_dir": folder / "models", "output_dir": folder / "results"})


def run(run_id: str, folder: Path, options: Mapping[str, Any]) -> None:
    """Run a bundle with its models and results below a folder."""
    command = command_of(run_id, folder, options)
    if status := status_of(command):
        raise failed(command, status)


def trial(folder: Path, options: Mapping[str, Any]) -> dict[str, float]:
    """Train and score one variant, unless that is done; the time and peak memory (GB) of the training."""
    done = folder / "trial.json"
    if done.is_file():
        return read_json(done, {str: float})
    run("training", folder, options)
    run("evaluating", folder, options)
    seconds = read_table(folder / "results" / "training.csv")["seconds"]
    steps = int(merge(*layers(options)).get_parsed_content("iterations_per_epoch"))
    measured = {
        "seconds per step": float(seconds.median()) / steps,
        "steps": steps * len(seconds),
        "minutes": seconds.sum() / 60,
    }
    record = read_json(folder / "results" / "runs" / "training.json", {"peak_memory_gb": {str: float}})
    if MAIN in record["peak_memory_gb"]:  # Windows does not report it
        measured["peak GB"] = record["peak_memory_gb"][MAIN]
    save_json(measured, done)
    return measured


def steps_in(minutes: float, folder: Path, options: Mapping[str, Any]) -> int:
    """Number of training steps that fit into a time, without reading and validation; measured once per folder."""
    log = folder / "results" / "training.csv"
    if not log.is_file() or len(read_table(log)) < EPOCHS:  # not measured, or interrupted
        short = {"epochs": EPOCHS, "iterations_per_epoch": PACE_STEPS, "val_interval": EPOCHS}
        run("training", folder, {**options, **short})
    seconds = read_table(log)["seconds"].iloc[1:].mean() / PACE_STEPS  # the first epoch also starts the data loader
    return max(round(60 * minutes / seconds), EPOCHS)


def row_of(folder: Path, bundle: str, options: Mapping[str, Any], measured: Mapping[str, float]) -> dict[str, str]:
    """The row of a trial in the table."""
    parameters, operations = cost(f"bundles/{bundle}/args.yaml", **options)
    row = {"parameters, M": f"{parameters:.2f}", "multiply-adds of 96³, G": f"{operations:.1f}"}
    row |= {"seconds per step": f"{measured['seconds per step']:.2f}"}
    row |= {"peak GB": f"{measured['peak GB']:.1f}"} if "peak GB" in measured else {}
    scores = read_json(folder / "results" / "scores" / "summary.json", SUMMARY)["scores"]
    for region, metrics in scores.items():
        if metrics["kind"] == "region":
            for name, heading, form in (("dice", "Dice", ".3f"), ("hd95", "HD95", ".1f")):
                row[f"{heading} {region}"] = interval_text(metrics[name], form)
    return row


def require_same_trials(output: str, trials: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Refuse to continue in a folder whose trials were started with other settings or files.

    Args:
        output: the folder.
        trials: the options of each.
        more: what else must not change.
    """
    configs = [merge(*layers(options)) for options in trials]
    files = [[options["args_file"], *files_in(options)] for options in trials]
    first, *others = ({"args_files": f, **settings_in(c)} for f, c in zip(files, configs, strict=True))
    shared = {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}
    cases = (case for case in configs[0].get_parsed_content("parts").found.complete if case.label)
    settings = {**shared, **more, "files": {case.name: hash_of(case) for case in cases}}
    require_same_settings(Path(output), json.loads(json.dumps(settings, default=str)))


def compare_trials(output: str, trials: Mapping[str, tuple[str, Mapping[str, Any]]]) -> str:
    """Run all trials, given by name as a bundle and its options; a table, and each difference from the first."""
    runs = {name: {**options, **files_of(bundle, "", *files_in(options))} for name, (bundle, options) in trials.items()}
    for name, each in runs.items():  # before the first of them, which takes long
        check_command(command_of("training", Path(output) / name, each)[3:])
    _claim = Claim("comparing", [output])
    require_same_trials(output, [*runs.values()])
    folders = {name: Path(output) / name.replace("@losses::", "") for name in trials}
    rows = []
    for name, (bundle, options) in trials.items():
        print(f"\n== {name}", flush=True)
        measured = trial(folders[name], runs[name])
        rows.append({"": name, **row_of(folders[name], bundle, options, measured)})
    scores = {name: mean_dice(folder / "results" / "scores") for name, folder in folders.items()}
    _, alone = common(pd.DataFrame(scores))
    note = f" Not scored by all, and so in some of the means alone: {', '.join(alone)}." if alone else ""
    parts = [f"Means with 95% bootstrap intervals.{note}", markdown(rows)]
    first, *others = trials
    for name in others:
        a, b = (str(folders[each] / "results" / "scores") for each in (first, name))
        difference = significance(differences(a, b, "dice")).to_string(float_format="{:.4f}".format)
        parts.append(f"Dice, {name} - {first}:\n{difference}")
    return write_comparison(Path(output), parts)


def write_comparison(folder: Path, parts: Sequence[str]) -> str:
    """Write the parts to comparison.md in the folder; the text."""
    text = "\n\n".join(parts)
    save_text(text + "\n", folder / "comparison.md")
    return text


def compare_bundles(output: str, cohort: str, dataset_dir: str, **options: Any) -> str:
    """Compare all bundles with `unet3d`.

    Args:
        output: folder for the trials and comparison.md.
        cohort: name of the data set, as in bundles/common/cohorts.yaml.
        dataset_dir: folder of the data set.
        options: settings of the bundles, such as --epochs 2; passed to every run.
    """
    names = sorted(bundles(), key=lambda name: (name != "unet3d", name))
    data = {"cohort": cohort, "dataset_dir": dataset_dir}
    return compare_trials(output, {name: (name, data | options) for name in names})


def compare_settings(output: str, cohort: str, dataset_dir: str, bundle: str, over: str, **options: Any) -> str:
    """Compare the values of one setting of a bundle: `attention`, `size` or `loss`.

    Args:
        output: folder for the trials and comparison.md.
        cohort: name of the data set, as in bundles/common/cohorts.yaml.
        dataset_dir: folder of the data set.
        bundle: a folder of bundles/.
        over: attention, size or loss.
        options: settings of the bundles, such as --epochs 2; passed to every run.
    """
    setting, values = one_of(OVER, over, setting="over")
    data = {"cohort": cohort, "dataset_dir": dataset_dir}
    return compare_trials(output, {value: (bundle, {**data, **options, setting: value}) for value in values})


def compare_recipes(
    output: str, cohort: str, dataset_dir: str, minutes: float, seeds: Sequence[int] = (0, 1, 2), **options: Any
) -> str:
    """Compare our default and the recipes after the same training time; each seed splits the patients differently.

    Args:
        output: folder for the trials and comparison.md.
        cohort: name of the data set, as in bundles/common/cohorts.yaml.
        dataset_dir: folder of the data set.
        minutes: training time, without reading and validation.
        seeds: one training of each recipe per seed, as 0,1,2.
        options: settings of the bundles, such as --batch_size 1; passed to every run.
    """
    numbers = ensure_tuple(seeds)
    if not numbers or not all(type(seed) is int for seed in numbers):
        raise OptionError(f"--seeds must be whole numbers, as 0,1,2; it is {seeds!r}.")
    if minutes <= 0:
        raise OptionError("--minutes is 0; give the training time.")
    folder, measured, dice = Path(output), {}, {}
    data = {"cohort": cohort, "dataset_dir": dataset_dir, **options}
    runs = {recipe: {**data, **files_of(bundle, recipe, *files_in(data))} for recipe, bundle in RECIPES.items()}
    for each in runs.values():  # before the first of them, which takes long
        check_command(command_of("training", folder, each)[3:])
    _claim = Claim("comparing", [output])
    require_same_trials(output, [*runs.values()], minutes=minutes)
    names = {recipe: recipe or f"{bundle}, our default" for recipe, bundle in RECIPES.items()}
    for seed in numbers:  # the outer loop, so that recipes can be compared after each seed
        for recipe, each in runs.items():
            print(f"\n== {names[recipe]}, seed {seed}", flush=True)
            trials = folder / (recipe or "default")
            steps = steps_in(minutes, trials / "pace", each)
            budget = {"epochs": EPOCHS, "iterations_per_epoch": max(steps // EPOCHS, 1), "val_interval": EPOCHS}
            place = trials / f"seed{seed}"
            measured[recipe, seed] = trial(place, {**each, **budget, "seed": seed})
            dice[recipe, seed] = mean_dice(place / "results" / "scores")
    scores, others = common(pd.concat(dice, names=["recipe", "seed", "case"]).unstack("recipe"))
    head = f"{minutes:g} minutes of training, {len(numbers)} seeds, {len(scores)} test scans; 95% bootstrap intervals."
    costs = pd.DataFrame(measured).T
    rows = [{"": names[recipe], **recipe_row(recipe, costs.loc[recipe], scores)} for recipe in RECIPES]
    head += f" Left out, because not all runs scored them: {', '.join(others)}." if others else ""
    return write_comparison(folder, [head, markdown(rows)])


def recipe_row(recipe: str, costs: pd.DataFrame, scores: pd.DataFrame) -> dict[str, str]:
    """The row of a recipe, from its costs (one row per seed) and the scores of all recipes (one column each)."""
    difference = (scores[recipe] - scores[""]).to_numpy()
    return {
        "bundle": RECIPES[recipe],
        "steps": f"{costs['steps'].iloc[0]:.0f}",
        "minutes": ", ".join(f"{value:.1f}" for value in costs["minutes"]),
        **({"peak GB": f"{costs['peak GB'].max():.1f}"} if "peak GB" in costs else {}),
        "mean Dice": mean_text(scores[recipe].to_numpy()),
        "by seed": ", ".join(f"{value:.3f}" for value in scores[recipe].groupby("seed").mean()),
        "minus default": mean_text(difference) if recipe else "",
    }


COMMANDS = {"bundles": compare_bundles, "settings": compare_settings, "recipes": compare_recipes}
