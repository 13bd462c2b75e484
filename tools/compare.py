"""Compare two runs on the cases that both scored: `python -m tools.compare RUN_A RUN_B`.

A run is a scores.csv, the folder that tools.score has written it to, or the output_dir of an `evaluating`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon
from tumour.errors import InputError, command_line
from tumour.scores.tables import mean_interval

METRICS = ("dice", "hd95", "lesion_dice")


def read_run(run: str) -> tuple[pd.DataFrame, str | None]:
    """The rows of a run's scores.csv, by case and region, and whose rules they follow."""
    places = [Path(run, name) for name in ("", "scores.csv", "scores/scores.csv")]
    path = next((place for place in places if place.is_file()), places[1])
    if not path.is_file():
        raise InputError(f"'{path}' is not there; name a folder that tools.score or evaluating wrote to.")
    rows = pd.read_csv(path, dtype={"case": str})
    unlike = {"case", "region", "kind", "dice"} - set(rows)
    if unlike:
        raise InputError(f"'{path}' has no column {', '.join(sorted(unlike))}; it is no scores.csv of ours.")
    summary = path.with_name("summary.json")
    told = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    return rows.set_index(["case", "region"]), told.get("challenge")


def differences(run_a: str, run_b: str, metric: str) -> pd.DataFrame:
    """`metric` of run B less that of run A: a row a case that both scored, a column a region."""
    (a, rules_a), (b, rules_b) = read_run(run_a), read_run(run_b)
    if rules_a and rules_b and rules_a != rules_b:
        raise InputError(f"'{run_a}' follows the rules of {rules_a}, '{run_b}' of {rules_b}; score both by the same.")
    if metric not in a or metric not in b:
        raise InputError(f"metric must be a column of both scores.csv, such as {', '.join(METRICS)}; it is '{metric}'.")
    paired = (b[metric] - a[metric]).dropna().unstack("region")
    if paired.empty:
        raise InputError(f"'{run_a}' and '{run_b}' have no case in common; score the same patients.")
    return paired[[region for region in a.index.unique("region") if region in paired]]


def significance(paired: pd.DataFrame) -> pd.DataFrame:
    """For each region the mean difference, its 95% bootstrap interval and p of the Wilcoxon signed-rank test (1945)."""
    rows: dict[Any, dict[str, Any]] = {}
    for region in paired:
        values = paired[region].dropna().to_numpy()
        low, high = mean_interval(values)
        p = wilcoxon(values).pvalue if np.any(values) else 1.0  # undefined where nothing differs
        rows[region] = {"B - A": values.mean(), "from": low, "to": high, "p": p, "cases": len(values)}
    return pd.DataFrame.from_dict(rows, orient="index").astype({"cases": int})


def compare(run_a: str, run_b: str, metric: str | None = None, worst: int = 10) -> str:
    """Tell whether two runs differ, region by region, and in which cases most.

    Args:
        run_a: folder with a scores.csv.
        run_b: another, of the same cases.
        metric: a column of scores.csv; default: Dice, HD95 and lesion-wise Dice.
        worst: how many of the cases that differ most to name, by the mean of the absolute differences over the columns.
    """
    names = [metric] if metric else [name for name in METRICS if name in read_run(str(run_a))[0]]
    paired = {name: differences(str(run_a), str(run_b), name) for name in names}
    text = [f"A: {run_a}\nB: {run_b}"]
    for name, frame in paired.items():
        text.append(f"{name}\n{significance(frame).to_string(float_format='{:.4f}'.format)}")
    frame = paired[names[0]]
    most = frame.loc[frame.abs().mean(axis=1).sort_values(ascending=False, kind="stable").index[:worst]]
    text.append(f"{names[0]}, B - A, where they differ most\n{most.to_string(float_format='{:.4f}'.format)}")
    return "\n\n".join(text)


def main() -> None:
    command_line(compare, "tools.compare")


if __name__ == "__main__":
    main()
