"""Write the scores of the trained weights into README.md as a table.

python -m tools results

They are read from `scores.json` next to the weights, which `run evaluating` writes, and are stored nowhere else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tumour.cases.parts import recorded_patients
from tumour.files import save_text
from tumour.runs.checkpoints import PATIENTS
from tumour.runs.trained import history_next_to
from tumour.scores.evaluation import crossvalidation_of, scores_of
from tumour.scores.tables import interval_text

from tools.bundles import ROOT
from tools.tables import filled, markdown

START = "<!-- results: written by `make results` from bundles/*/weights/scores.json -->"
END = "<!-- end of results -->"
FEW = 10  # scans; the mean of fewer is not reliable for other patients


def training_patients(checkpoint: Path) -> str:
    """The numbers of patients used for training and for selecting a checkpoint, and their data set, if recorded."""
    record = checkpoint.with_name(PATIENTS)
    if not record.is_file():
        return "not recorded"
    patients = recorded_patients(record)
    cohorts = ", ".join(history_next_to(checkpoint)["trained_on"]) or "an unknown data set"
    return f"{len(patients['train'])} + {len(patients['validate'])}, read as {cohorts}"


def row(cohort: str, record: Mapping[str, Any]) -> dict[str, str]:
    """The scores of one data set as cells, by column."""
    regions = record["scores"]
    dice = {name: scores["dice"] for name, scores in regions.items()}
    cells = {"test scans": f"{scans(record)}, read as {cohort}", "rules": record["challenge"]}
    for name, mean in dice.items():
        cells[f"Dice {name}"] = interval_text(mean)
    cells["mean Dice"] = f"{np.mean([mean['mean'] for mean in dice.values()]):.3f}" if dice else "no region to score"
    hd95 = [f"{name} {scores['hd95']['mean']:.1f}" for name, scores in regions.items() if "hd95" in scores]
    return cells | {"HD95, mm": ", ".join(hd95) or "not measured"}


def scans(record: Mapping[str, Any]) -> int:
    """The number of scans of one data set that were scored; a patient may have several."""
    return max((scores["dice"]["cases"] for scores in record["scores"].values()), default=0)


def results(checkpoints: Mapping[str, Path]) -> str:
    """The scores of checkpoints, one row per checkpoint and data set, and how to read them.

    Args:
        checkpoints: by the name of their bundle.
    """
    rows, counts, out_of_fold = [], set(), False
    for bundle, checkpoint in checkpoints.items():
        first = {"bundle": f"`{bundle}`", "training patients": training_patients(checkpoint)}
        records = scores_of(checkpoint)
        rows += [first | row(cohort, record) for cohort, record in records.items()]
        for cohort, record in crossvalidation_of(checkpoint).items():
            cells = row(cohort, record)
            cells["test scans"] += f", cross-validation in {record['folds']} folds"
            rows.append(first | cells)
            out_of_fold = True
        rows += [] if records or crossvalidation_of(checkpoint) else [first | {"test scans": "not scored yet"}]
        counts |= {scans(record) for record in records.values()}
    few = " or ".join(str(count) for count in sorted(counts) if count < FEW)
    note = (
        "Training patients: used for training + used to select the checkpoint. The patients of the test scans were\n"
        "used for neither; scores are means over the scans, with 95% bootstrap intervals. Read as: files and labels\n"
        "are named as in this data set; some of the patients may be of another one."
    )
    if out_of_fold:
        note += (
            "\nCross-validation: the scores of networks trained with the same settings, one per fold, each on the\n"
            "patients of the fold that it was trained without; this network, or the members of this ensemble, were\n"
            "trained on all of them."
        )
    if few:
        note += f"\n**Only {few} test scans**: the scores show that training works, not which network is best."
    return f"{note}\n\n{markdown(rows)}"


def updated(text: str) -> str:
    """A page with the scores of the weights in bundles/*/weights between its two comments."""
    checkpoints = {path.parents[1].name: path for path in sorted(ROOT.glob("bundles/*/weights/model.pt"))}
    return filled(text, START, END, results(checkpoints))


def write_results() -> None:
    """Write the results into README.md."""
    path = ROOT / "README.md"
    save_text(updated(path.read_text(encoding="utf-8")), path)
    print(f"{path}: results written")
