"""What a cross-validation shows of a network's quality: calibration, predicted Dice, and labels worth a second look."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tumour.files import save_text
from tumour.maps.aftertreatment import KINDS
from tumour.records import csv_text, read_json
from tumour.runs.options import switch
from tumour.scores.calibration import calibration_error, fit_temperature, reliability
from tumour.scores.quality import (
    CASE_EVIDENCE,
    FEWEST,
    WORST,
    Judgement,
    Quality,
    Scored,
    uncertain_slices,
    write_table,
)
from tumour.scores.tables import read_scores

from tools.tables import markdown

EVIDENCE = "evidence.json"  # in the results of a fold
SECOND_LOOK = "second_look.csv"
logger = logging.getLogger("bundle")


def evidence_in(results: Sequence[Path]) -> list[dict[str, Any]]:
    """The evidence of the cases of each fold, by case; empty, with a warning, if a fold has none."""
    paths = [folder / EVIDENCE for folder in results]
    if missing := next((path for path in paths if not path.is_file()), None):
        logger.warning(
            f"There is no calibration and no model of the quality, because '{missing}' is missing; delete the folder "
            f"'{missing.with_name('scores')}' and run the same command again to score the fold again."
        )
        return []
    return [read_json(path, {str: CASE_EVIDENCE}) for path in paths]


def scored_cases(results: Sequence[Path], evidence: Sequence[Mapping[str, Any]]) -> list[Scored]:
    """The cases of all folds with their Dice.

    A region that is in neither mask has no Dice by some rules; it counts as 1, because its prediction is right.
    """
    cases = []
    for fold, (folder, of_case) in enumerate(zip(results, evidence, strict=True)):
        rows = read_scores(folder / "scores" / "scores.csv")
        dice = rows[rows["kind"] == "region"].pivot(index="case", columns="region", values="dice").fillna(1.0)
        for case, found in of_case.items():
            histograms = {name: np.array(counts) for name, counts in found["histograms"].items()}
            cases.append(Scored(case, fold, histograms, {name: float(dice.loc[case, name]) for name in histograms}))
    return cases


def by_fold(cases: Sequence[Scored]) -> list[tuple[list[Scored], list[Scored]]]:
    """For each fold, the cases of all other folds, which a model is fitted to, and its own."""
    folds = sorted({case.fold for case in cases})
    return [([c for c in cases if c.fold != fold], [c for c in cases if c.fold == fold]) for fold in folds]


def calibration_rows(cases: Sequence[Scored]) -> list[dict[str, str]]:
    """The calibration error of each region before and after a temperature that is fitted to the other folds."""
    tables: dict[str, list[Any]] = {name: [] for name in cases[0].dice}
    temperatures: dict[str, list[str]] = {name: [] for name in cases[0].dice}
    for others, own in by_fold(cases):
        for name in tables:
            fitted, histograms = (np.stack([case.histograms[name] for case in part]) for part in (others, own))
            tables[name].append((histograms, fit_temperature(fitted)))
            temperatures[name].append(f"{tables[name][-1][1]:.2f}")
    rows = []
    for name, parts in tables.items():
        before = pooled([reliability(histograms) for histograms, _ in parts])
        after = pooled([reliability(histograms, temperature) for histograms, temperature in parts])
        rows.append(
            {
                "region": name,
                "ACE before": f"{calibration_error(before):.3f}",
                "ACE after": f"{calibration_error(after):.3f}",
                "temperatures of the folds": ", ".join(temperatures[name]),
            }
        )
    return rows


def pooled(tables: Sequence[Any]) -> Any:
    """Several tables of `reliability` as one of all their cases."""
    number = np.sum([table[0] for table in tables], axis=0)
    means = [np.sum([table[0] * table[row] for table in tables], axis=0) for row in (1, 2)]
    return np.stack([number, *(mean / np.maximum(number, 1) for mean in means)])


def judge_folds(
    cases: Sequence[Scored], evidence: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[tuple[Scored, Judgement]]:
    """Each case, judged by a model that was fitted to the other folds; none if these have too few cases."""
    judged = []
    for others, own in by_fold(cases):
        if len(others) < FEWEST:
            return []
        quality = Quality.fit(others, settings)
        for case in own:
            slices = uncertain_slices(evidence[case.case]["entropy"])
            judged.append((case, quality.judge(case.case, case.histograms, slices)))
    return judged


def quality_rows(judged: Sequence[tuple[Scored, Judgement]]) -> list[dict[str, str]]:
    """How well the quality of the cases was predicted."""
    true = np.array([case.mean for case, _ in judged])
    predicted = np.array([found.dice for _, found in judged])
    inside = np.mean([found.low <= case.mean <= found.high for case, found in judged])
    lights = np.array([found.light for _, found in judged])
    worst = np.zeros(len(judged), bool)
    worst[np.argsort(true, kind="stable")[: round(WORST * len(judged))]] = True
    texts = {
        "Spearman's correlation of predicted and true mean Dice": f"{spearmanr(predicted, true).statistic:.2f}",
        "mean absolute error": f"{np.abs(predicted - true).mean():.3f}",
        "cases inside the interval": f"{inside:.0%}",
        "red among the worst fifth": f"{(lights[worst] == 'red').sum()} of {worst.sum()}",
        "red among the others": f"{(lights[~worst] == 'red').sum()} of {(~worst).sum()}",
        "green among the worst fifth": f"{(lights[worst] == 'green').sum()} of {worst.sum()}",
        "green among the others": f"{(lights[~worst] == 'green').sum()} of {(~worst).sum()}",
    }
    return [{"predicted quality": name, "value": text} for name, text in texts.items()]


def second_look(judged: Sequence[tuple[Scored, Judgement]], evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The references by how much worse than predicted their cases score, largest difference first.

    A network that is sure and yet disagrees with the reference may be right: look at its label again, in the slices
    with most disagreement.
    """
    rows = []
    for case, judgement in judged:
        gaps = {name: judgement.regions[name] - dice for name, dice in case.dice.items()}
        region = max(gaps, key=lambda name: gaps[name])
        slices = uncertain_slices(evidence[case.case]["disagreement"][region])
        dice = {"predicted_dice": judgement.regions[region], "dice": case.dice[region], "difference": gaps[region]}
        rounded = {name: round(value, 3) for name, value in dice.items()}
        rows.append({"case": case.case, "region": region, **rounded, "slices": " ".join(map(str, slices))})
    return sorted(rows, key=lambda row: (-row["difference"], row["case"]))


def settings_for(started: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a cross-validation that its model of the quality is valid for."""
    treatment = {name: started[f"after_treatment::{name}"] for name in KINDS}
    return {"mirror": switch(started["mirror"]), "after_treatment": treatment}


def assess(output: Path, results: Sequence[Path], started: Mapping[str, Any]) -> tuple[Quality | None, dict[str, Any]]:
    """Fit the model of a cross-validation, and write quality.csv of its label maps and second_look.csv.

    Args:
        output: folder of the cross-validation.
        results: those of each fold.
        started: the settings of the cross-validation.

    Returns:
        The model, and the tables for its summary by name; None and no table where evidence or cases are missing.
    """
    evidence = evidence_in(results)
    if not evidence or not all(evidence):
        return None, {}
    cases, settings = scored_cases(results, evidence), settings_for(started)
    tables: dict[str, Any] = {"calibration": calibration_rows(cases)}
    of_case = {case: each for fold in evidence for case, each in fold.items()}
    judged = judge_folds(cases, of_case, settings)
    if not judged:
        logger.warning(f"There is no model of the quality: it needs {FEWEST} cases or more outside of each fold.")
        return None, tables
    write_table((found.row() for _, found in judged), output / "segmentations")
    save_text(csv_text(second_look(judged, of_case)), output / SECOND_LOOK)
    return Quality.fit(cases, settings), {**tables, "quality": quality_rows(judged)}


def text_of(tables: Mapping[str, Any]) -> str:
    """The tables as Markdown, with what they show."""
    blocks = {
        "calibration": "Average calibration error (ACE) of the probabilities, before and after one temperature per "
        "region;\neach fold is scored with the temperature that was fitted to the others.",
        "quality": "The predicted mean Dice of each case, by a model that was fitted to the other folds "
        "(segmentations/quality.csv).\nLabels that may be wrong come first in second_look.csv.",
    }
    return "".join(f"\n\n{blocks[name]}\n\n{markdown(rows)}" for name, rows in tables.items())
