"""The model card of a release, its scores those that were measured of the weights in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tumour.errors import InputError
from tumour.scores.evaluation import scores_of
from tumour.scores.tables import interval_text

ROOT = Path(__file__).parents[2]
SECTIONS = [  # of a model card, in the zoo's order
    *["Model Overview", "Data", "Training configuration", "Memory Consumption", "Input", "Output", "Performance"],
    *["Comparison", "MONAI Bundle Commands", "References", "License"],
]
WEIGHTS = {
    "shipped": "Trained weights are in `models/model.pt`.",
    "linked": "Trained weights are fetched by `python -m monai.bundle download_large_files`, from this folder.",
    "none": "No weights are shipped: train first. The figures above are of a training by the commands beside them.",
}


def scored(checkpoint: Path) -> dict[str, Any]:
    """The mean scores of a checkpoint for metadata.json, by data set."""
    metrics: dict[str, Any] = {}
    for cohort, of in scores_of(checkpoint).items():
        metrics[cohort] = {f"{name}_{region}": s[name]["mean"] for region, s in of["scores"].items() for name in s}
        metrics[cohort]["patients"] = max(s["dice"]["cases"] for s in of["scores"].values())
    return metrics


def seen(checkpoint: Path) -> str:
    """On whom a checkpoint was trained, in a sentence; nothing if that is not recorded."""
    patients, settings = (checkpoint.with_name(name) for name in ("patients.json", "settings.json"))
    if not (patients.is_file() and settings.is_file()):
        return ""
    parts = json.loads(patients.read_text(encoding="utf-8"))
    cohort = json.loads(settings.read_text(encoding="utf-8"))["cohort"]
    return (
        f"Trained on {len(parts['train'])} patients of {cohort}; {len(parts['validate'])} others chose the checkpoint."
    )


def performance(checkpoint: Path) -> str:
    """The card's section on how the weights in a release scored."""
    cohorts = scores_of(checkpoint)
    if not cohorts:
        return f"## Performance\n\n{seen(checkpoint)} These weights have not been scored: `run evaluating` does it.\n"
    head = f"{seen(checkpoint)} Scores of patients that did neither, by `run evaluating`, with 95% bootstrap intervals:"
    lines = ["## Performance", "", head.strip(), ""]
    lines += ["| data set | rules | patients | region | Dice | HD95, mm |", "|" + " --- |" * 6]
    for cohort, of in cohorts.items():
        for region, metrics in of["scores"].items():
            dice, hd95 = (
                interval_text(told["mean"], told["interval_low"], told["interval_high"], form)
                for told, form in ((metrics["dice"], ".3f"), (metrics["hd95"], ".1f"))
            )
            lines.append(f"| {cohort} | {of['challenge']} | {metrics['dice']['cases']} | {region} | {dice} | {hd95} |")
    return "\n".join(lines) + "\n"


def sections(text: str) -> dict[str, str]:
    """The sections of a model card, by heading."""
    parts = re.split(r"^(#+ .*)$", text, flags=re.MULTILINE)[1:]
    return {head.lstrip("# "): head + body for head, body in zip(parts[::2], parts[1::2], strict=True)}


def card(bundle: str, weights: str, config: Mapping[str, Any], checkpoint: Path | None = None) -> str:
    """The model card: the variant's own sections and the common ones, in the zoo's order.

    Args:
        bundle: a folder of bundles/.
        weights: one of WEIGHTS.
        config: of the release, which names its modalities and its data set.
        checkpoint: the weights of the release, if it has any; its scores take the place of the variant's own.
    """
    own = sections((ROOT / "bundles" / bundle / "docs" / "README.md").read_text(encoding="utf-8"))
    if checkpoint is not None:
        own |= sections(performance(checkpoint))
    common = (ROOT / "bundles" / "common" / "card.md").read_text(encoding="utf-8")
    told = {"weights": WEIGHTS[weights], "modalities": ", ".join(config["modalities"]), "cohort": config["cohort"]}
    for name, value in told.items():
        common = common.replace(f"{{{name}}}", value)
    found = sections(common) | own
    unknown = [name for name in found if name not in SECTIONS]
    if unknown:
        raise InputError(f"bundles/{bundle}/docs/README.md: '{unknown[0]}' is not one of {', '.join(SECTIONS)}.")
    return "\n".join(found[name].strip() + "\n" for name in SECTIONS if name in found)
