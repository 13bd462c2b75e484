"""The files that a run wrote, as tables and settings; missing files are empty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import pandas as pd
from tumour.cases.case import CASE, LEFT_OUT, Case, LeftOut
from tumour.cases.parts import recorded_patients
from tumour.records import read_json, read_table
from tumour.scores.quality import read_rows
from tumour.scores.tables import SHOWN, SUMMARY

from tools.report.charts import best_epoch

RUN = {  # what the record of a run contains
    "run": str,
    "state": str,
    "started": str,
    "seconds": float,
    "device": str,
    "peak_memory_gb": {str: float},
    "versions": {str: str},
    "left_out": [LEFT_OUT],
    "cases?": [CASE],
    "notes?": [LEFT_OUT],
    "settings?": [str],
    "files?": [str],
    "config?": str,
}

LOW = 0.5  # Dice of a region below which somebody should look at the case


@dataclass(frozen=True)
class Results:
    """The files that a run wrote.

    Attributes:
        log: training.csv.
        scores: rows of scores.csv for regions, without those for classes.
        lesions: rows of lesions.csv for regions; empty if the rules do not count lesions.
        summary: summary.json.
        runs: the records of the runs, by time.
        patients: patients used for training, validation and testing.
        quality: rows of quality.csv by case, as far as the quality was predicted.
        drawn: what was found to be doubtful when the cases were drawn.
    """

    log: pd.DataFrame
    scores: pd.DataFrame
    lesions: pd.DataFrame
    summary: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    patients: Mapping[str, Sequence[str]]
    quality: Mapping[str, Mapping[str, Any]]
    drawn: Sequence[LeftOut] = ()

    @classmethod
    def read(cls, output_dir: Path, ckpt_dir: Path, scores: Path, segmentations: Path) -> Self:
        tables = (_table(scores / name, ["case", "kind", "region"]) for name in ("scores.csv", "lesions.csv"))
        rows, lesions = (table[table["kind"] == "region"] if len(table) else table for table in tables)
        runs = [read_json(path, RUN) for path in sorted(output_dir.glob("runs/*.json"))]
        runs.sort(key=lambda run: run["started"])
        log = _table(output_dir / "training.csv", ["epoch", "seconds", "learning_rate", "loss"])
        record, written = ckpt_dir / "patients.json", scores / "summary.json"
        patients = recorded_patients(record) if record.is_file() else {}
        summary = read_json(written, SUMMARY) if written.is_file() else {}
        quality = {row["case"]: row for row in read_rows(segmentations)}
        return cls(log, rows, lesions, summary, runs, patients, quality)

    def cases(self) -> list[Case]:
        """The cases that the runs segmented, each once."""
        records = {case["name"]: case for run in self.runs for case in run.get("cases", [])}
        return [Case.from_record(record) for _, record in sorted(records.items())]

    def left_out(self) -> list[LeftOut]:
        """The cases that a run left out."""
        return [LeftOut(each["case"], each["why"]) for run in self.runs for each in run["left_out"]]

    def notes(self) -> list[LeftOut]:
        """What the runs noted about cases that they used, each once, and what is doubtful about those drawn."""
        noted = (each for run in self.runs for each in run.get("notes", []))
        return list(dict.fromkeys([*(LeftOut(each["case"], each["why"]) for each in noted), *self.drawn]))

    def dice(self) -> dict[str, dict[str, float]]:
        """The Dice of each region by case, from the table of scores."""
        if self.scores.empty:
            return {}
        table = self.scores.pivot(index="case", columns="region", values="dice")
        return {str(case): row.dropna().to_dict() for case, row in table.iterrows()}

    def score_table(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Headings and rows of the table of scores: mean and 95% interval for each region and class."""
        summary = self.summary.get("scores", {})
        shown = {name: form for name, form in SHOWN.items() if any(name in scores for scores in summary.values())}
        rows = []
        for region, scores in summary.items():
            cells = []
            for metric, (_, decimals) in shown.items():
                values = [scores.get(metric, {}).get(key) for key in ("mean", "interval_low", "interval_high")]
                mean, low, high = ("" if value is None else f"{value:.{decimals}f}" for value in values)
                cells.append({"mean": mean, "interval": f"{low} to {high}" if low else ""})
            rows.append({"region": region, "cases": scores["dice"]["cases"], "cells": cells})
        return [heading for heading, _ in shown.values()], rows

    def means(self) -> pd.DataFrame:
        """Mean Dice and IoU over the regions in %, for the best validation and for the test patients."""
        rows, best = {}, best_epoch(self.log)
        if best and self.patients.get("validate") != []:  # empty: the last weights were kept
            scores = self.log.set_index("epoch").loc[best, ["validate_dice", "validate_iou"]]
            rows[f"validation, epoch {best} (used for model selection)"] = scores.to_list()
        regions = [scores for scores in self.summary.get("scores", {}).values() if scores["kind"] == "region"]
        tested = [scores for scores in regions if scores["dice"]["cases"]]
        if tested:
            folds = self.summary.get("folds")
            rows[f"cross-validation, {folds} folds" if folds else "test"] = [
                fmean(scores[metric]["mean"] for scores in tested if scores[metric]["mean"] is not None)
                for metric in ("dice", "iou")
            ]
        return 100 * pd.DataFrame.from_dict(rows, orient="index", columns=["Dice %", "IoU %"])

    def worst_first(self, cases: Sequence[str], regions: Sequence[str]) -> list[tuple[str, dict[str, float]]]:
        """The cases with the Dice of each region, lowest mean first; without a score, the predicted mean counts.

        Cases with neither come last.
        """
        dice = self.dice()
        rows = [
            (case, {r: dice[case][r] for r in regions if r in dice[case]} if case in dice else {}) for case in cases
        ]

        def mean(case: str, dice: Mapping[str, float]) -> float:
            return fmean(dice.values()) if dice else self.quality.get(case, {"dice": 2.0})["dice"]

        return sorted(rows, key=lambda row: (mean(*row), row[0]))

    def sentence(self, cases: Sequence[tuple[str, Mapping[str, float]]], left_out: int) -> str:
        """How many cases there are, how good they are, and how many need a look and why.

        Args:
            cases: as returned by `worst_first`.
            left_out: number of cases that were left out.
        """
        parts = [f"{len(cases)} case{'s' * (len(cases) != 1)}"]
        parts += [f"{left_out} left out"] if left_out else []
        scored = [fmean(dice.values()) for _, dice in cases if dice]
        parts += [f"mean Dice {fmean(scored):.2f}"] if scored else []
        reasons = {
            f"have a region with a Dice below {LOW:g}": {
                case for case, dice in cases if min(dice.values(), default=1) < LOW
            },
            "have a note": {note.case for note in self.notes()},
            "have a predicted quality that is not green": {c for c, q in self.quality.items() if q["light"] != "green"},
        }
        look = {case for case, _ in cases} & set().union(*reasons.values())
        why = [f"{len(look & found)} {reason}" for reason, found in reasons.items() if look & found]
        then = f"{len(look)} to look at: {', '.join(why)}." if look else "None needs a look."
        return f"{', '.join(parts)}. {then}"

    def advice(self, case: str) -> str:
        """What the traffic light of a case means, with the predicted Dice and the slices to look at."""
        row = self.quality[case]
        dice = f"predicted Dice {row['dice']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        slices = f", slices {row['slices'].replace(' ', ', ')} of the scan" if row["slices"] else ""
        action = {"green": "use it", "yellow": f"look at it{slices}", "red": "segment it manually"}[row["light"]]
        return f"{row['light']}: {action}; {dice}"


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    return read_table(path, columns) if path.is_file() else pd.DataFrame()
