"""Train and score the same with one thing changed, and tell the difference in one table.

python -m tools.trials bundles --output DIR --cohort NAME --dataset_dir DIR            the bundles beside each other
python -m tools.trials settings --output DIR --cohort NAME --dataset_dir DIR --bundle neuroseg3d --over attention

All other options go to every run alike. A trial that is done is not run again, so a stopped comparison goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tools.compare import differences, significance
from tools.errors import InputError, command_line, one_of
from tools.files import save_json, whole
from tools.networks import cost
from tools.show import merged

OVER = {  # what can be compared within a bundle: its id and the values
    "attention": ("network_def::network::attention", ["spatial", "channel", "cbam", "none"]),
    "size": ("size", ["fast", "full"]),
    "loss": ("loss", ["@losses::dice_bce", "@losses::dice", "@losses::focal_tversky", "@losses::cc_dice_bce"]),
}


def trial(folder: Path, bundle: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """Train and score one; seconds a step and peak memory (GB) of the training."""
    done = folder / "trial.json"
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))
    where = {"ckpt_dir": folder / "models", "output_dir": folder / "results"}
    flags = [str(part) for name, value in {**where, **settings}.items() for part in (f"--{name}", value)]
    peak = 0.0
    for run_id in ("training", "evaluating"):
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--args_file", f"bundles/{bundle}/args.yaml"]
        process = subprocess.Popen([*command, *flags])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise InputError(f"'{' '.join(command + flags)}' failed; its lines above say why.")
        peak = peak or usage.ru_maxrss / 2**20
    log = pd.read_csv(folder / "results" / "training.csv")
    steps = merged(f"bundles/{bundle}/args.yaml")
    steps.update(dict(settings))
    seconds = float(log["seconds"].median()) / int(steps.get_parsed_content("iterations_per_epoch"))
    told = {"seconds a step": seconds, "peak GB": peak}
    save_json(told, done)
    return told


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
                row[f"{heading} {region}"] = (
                    f"{m['mean']:{form}} ({m['interval_low']:{form}}-{m['interval_high']:{form}})"
                )
    return row


def compared(output: str, trials: Mapping[str, tuple[str, Mapping[str, Any]]]) -> str:
    """Run all trials, each a bundle and its settings by name; the table, and each but the first less the first."""
    folders = {name: Path(str(output)) / name.replace("@losses::", "") for name in trials}
    rows = {}
    for name, (bundle, settings) in trials.items():
        print(f"\n== {name}", flush=True)
        told = trial(folders[name], bundle, settings)
        rows[name] = row_of(folders[name], bundle, settings, told)
    frame = pd.DataFrame.from_dict(rows, orient="index")
    lines = ["| | " + " | ".join(frame.columns) + " |", "|" + " --- |" * (len(frame.columns) + 1)]
    lines += [
        f"| {name} | " + " | ".join(values) + " |" for name, values in zip(frame.index, frame.values, strict=True)
    ]
    first, *others = trials
    for name in others:
        a, b = (str(folders[each] / "results" / "scores") for each in (first, name))
        paired = differences(a, b, "dice")
        lines += ["", f"Dice, {name} less {first}:", significance(paired).to_string(float_format="{:.4f}".format)]
    text = "\n".join(["Means with 95% bootstrap intervals.", "", *lines])
    with whole(Path(str(output)) / "comparison.md") as part:
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


def main() -> None:
    command_line({"bundles": bundles, "settings": settings}, "tools.trials")


if __name__ == "__main__":
    main()
