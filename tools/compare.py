"""Compare two runs on the cases that both scored.

python -m tools compare RUN_A RUN_B

A run is a scores.csv, its folder as written by `score`, or the output_dir of an evaluation.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon
from tumour.errors import InputError, OptionError
from tumour.records import read_json
from tumour.scores.tables import mean_interval, read_scores

METRICS = ("dice", "hd95", "lesion_dice")


def read_run(run: str) -> tuple[pd.DataFrame, str | None]:
    """The scores of a run by case and region, and the challenge whose rules they follow."""
    places = [Path(run, name) for name in ("", "scores.csv", "scores/scores.csv")]
    path = next((place for place in places if place.is_file()), places[1])
    if not path.is_file():
        raise OptionError(f"'{path}' does not exist; give a folder that python -m tools score or evaluating wrote to.")
    rows = read_scores(path)
    summary = path.with_name("summary.json")
    content = read_json(summary, {"challenge?": str}) if summary.is_file() else {}
    return rows.set_index(["case", "region"]), content.get("challenge")


def mean_dice(*folders: Path) -> pd.Series:
    """Mean Dice over the regions, for each case in the scores.csv of some folders."""
    rows = pd.concat([read_scores(folder / "scores.csv") for folder in folders])
    return rows[rows["kind"] == "region"].groupby("case")["dice"].mean()


def common(scores: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The scores of the cases that all of several runs scored, and the names of the others.

    Means over different cases cannot be compared: a run that left out a hard case would seem better.

    Args:
        scores: one row per case, one column per run.

    Raises:
        InputError: no case was scored by all.
    """
    known = scores.dropna()
    others = scores.index.difference(known.index).get_level_values("case").unique()
    if known.empty:
        raise InputError("No case was scored by all that are compared; the outputs above say why each was left out.")
    return known, [*others]


def differences(run_a: str, run_b: str, metric: str) -> pd.DataFrame:
    """`metric` of run B minus that of run A: one row per case that both scored, one column per region."""
    (a, rules_a), (b, rules_b) = read_run(run_a), read_run(run_b)
    if rules_a and rules_b and rules_a != rules_b:
        raise OptionError(f"'{run_a}' follows the rules of {rules_a}, '{run_b}' of {rules_b}; use the same for both.")
    if not all(metric in run and pd.api.types.is_numeric_dtype(run[metric]) for run in (a, b)):
        raise OptionError(
            f"metric must be a column of numbers in both scores.csv, as {', '.join(METRICS)}; it is '{metric}'."
        )
    paired = (b[metric] - a[metric]).dropna().unstack("region")
    if paired.empty:
        raise OptionError(f"'{run_a}' and '{run_b}' have no scores of one case and region; score the same patients.")
    return paired[[region for region in a.index.unique("region") if region in paired]]


def significance(paired: pd.DataFrame) -> pd.DataFrame:
    """Mean difference, its 95% bootstrap interval and p of the Wilcoxon signed-rank test (1945), for each region."""
    rows: dict[Any, dict[str, Any]] = {}
    for region in paired:
        values = paired[region].dropna().to_numpy()
        low, high = mean_interval(values)
        p = wilcoxon(values).pvalue if np.any(values) else 1.0  # undefined without a difference
        rows[region] = {"B - A": values.mean(), "from": low, "to": high, "p": p, "cases": len(values)}
    return pd.DataFrame.from_dict(rows, orient="index").astype({"cases": int})


def compare(run_a: str, run_b: str, metric: str | None = None, worst: int = 10) -> str:
    """Compare two runs region by region, and list the cases that differ most.

    Args:
        run_a: folder with a scores.csv.
        run_b: another folder, with scores of the same cases.
        metric: a column of scores.csv; default: Dice, HD95 and lesion-wise Dice.
        worst: number of cases to list, by the mean absolute difference over the regions.
    """
    names = [metric] if metric else [name for name in METRICS if name in read_run(run_a)[0]]
    paired = {name: differences(run_a, run_b, name) for name in names}
    text = [f"A: {run_a}\nB: {run_b}"]
    for name, frame in paired.items():
        text.append(f"{name}\n{significance(frame).to_string(float_format='{:.4f}'.format)}")
    frame = paired[names[0]]
    most = frame.loc[frame.abs().mean(axis=1).sort_values(ascending=False, kind="stable").index[:worst]]
    text.append(f"{names[0]}, B - A, the cases that differ most\n{most.to_string(float_format='{:.4f}'.format)}")
    return "\n\n".join(text)
