"""The scores of trained weights as a Markdown table: `python -m tools.results` writes them into README.md.

They are read from `scores.json` beside the weights, which `run evaluating` writes, and are kept nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tumour.errors import InputError, command_line
from tumour.files import whole
from tumour.runs.checkpoints import PATIENTS, settings_of
from tumour.scores.evaluation import scores_of
from tumour.scores.tables import interval_text

ROOT = Path(__file__).parents[1]
START = "<!-- results: written by `make results` from bundles/*/weights/scores.json -->"
END = "<!-- end of results -->"
FEW = 10  # patients; a mean of fewer says little about other patients


def training_patients(checkpoint: Path) -> str:
    """How many patients a checkpoint was trained and selected on, and of which data set, as far as it is recorded."""
    record = checkpoint.with_name(PATIENTS)
    if not record.is_file():
        return "not recorded"
    patients = json.loads(record.read_text(encoding="utf-8"))
    cohort = settings_of(str(checkpoint.parent)).get("cohort", "an unknown data set")
    return f"{len(patients['train'])} + {len(patients['validate'])} of {cohort}"


def row(cohort: str, record: Mapping[str, Any]) -> dict[str, str]:
    """The scores of one data set as cells, by column."""
    regions = record["scores"]
    dice = {name: scores["dice"] for name, scores in regions.items()}
    cells = {"test patients": f"{patients(record)} of {cohort}", "rules": record["challenge"]}
    for name, mean in dice.items():
        cells[f"Dice {name}"] = interval_text(mean["mean"], mean["interval_low"], mean["interval_high"])
    cells["mean Dice"] = f"{np.mean([mean['mean'] for mean in dice.values()]):.3f}"
    return cells | {"HD95, mm": ", ".join(f"{name} {scores['hd95']['mean']:.1f}" for name, scores in regions.items())}


def patients(record: Mapping[str, Any]) -> int:
    """The number of patients that scores of one data set rest on."""
    return max(scores["dice"]["cases"] for scores in record["scores"].values())


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table with the columns of all rows; a cell that a row lacks stays empty."""
    columns = list(dict.fromkeys(column for cells in rows for column in cells))
    lines = [columns, ["---"] * len(columns), *([cells.get(column, "") for column in columns] for cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results(checkpoints: Mapping[str, Path]) -> str:
    """The scores of checkpoints, one row per checkpoint and data set, and how to read them.

    Args:
        checkpoints: by the name of their bundle.
    """
    rows, counts = [], set()
    for bundle, checkpoint in checkpoints.items():
        first = {"bundle": f"`{bundle}`", "training patients": training_patients(checkpoint)}
        records = scores_of(checkpoint)
        rows += [first | row(cohort, record) for cohort, record in records.items()]
        rows += [] if records else [first | {"test patients": "not scored yet"}]
        counts |= {patients(record) for record in records.values()}
    few = " or ".join(str(count) for count in sorted(counts) if count < FEW)
    note = (
        "Training patients: used for training + used to select the checkpoint. The test patients were used for\n"
        "neither; scores are means over them, with 95% bootstrap intervals."
    )
    if few:
        note += f"\n**Only {few} test patients**: the scores show that training works, not which network is best."
    return f"{note}\n\n{markdown(rows)}"


def updated(text: str) -> str:
    """A page with the scores of the weights in bundles/*/weights between its two comments."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise InputError(f"README.md must hold the lines '{START}' and '{END}'; the results go between them.")
    checkpoints = {path.parents[1].name: path for path in sorted(ROOT.glob("bundles/*/weights/model.pt"))}
    return f"{before}{START}\n\n{results(checkpoints)}\n\n{END}{after}"


def main() -> None:
    """Write the results into README.md."""
    path = ROOT / "README.md"
    text = updated(path.read_text(encoding="utf-8"))
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
    print(f"{path}: results written")


if __name__ == "__main__":
    command_line(main, "tools.results")
