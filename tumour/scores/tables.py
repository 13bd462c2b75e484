"""Write scores to files, and summarise them as means with intervals and as text."""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tumour.errors import InputError
from tumour.files import atomic_write
from tumour.records import csv_text, read_table
from tumour.scores.lesions import LESION
from tumour.scores.metrics import Row

SHOWN = {  # metric: heading, decimals
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "hd95": ("HD95 mm", 1),
    "sensitivity": ("sensitivity", 3),
    "precision": ("precision", 3),
    "lesion_dice": ("lesion-wise Dice", 3),
    "lesion_f1": ("lesion F1", 3),
}
MEAN = {"cases": int, "mean": (float, None), "interval_low": (float, None), "interval_high": (float, None)}
SUMMARY = {  # what summary.json contains
    "challenge": str,
    "folds?": int,
    "cohort?": str,
    **{f"{name}?": [{str: (str, float)}] for name in ("groups", "calibration", "quality")},
    "scores": {str: {"kind": str, "dice": MEAN, "iou": MEAN, str: (str, {str: (float, None)})}},
}
RESAMPLES = 2000  # of the bootstrap
LESION_COLUMNS = ["case", "kind", "region", *LESION]  # those of lesions.csv if there is no lesion


def write_scores(rows: Sequence[Row], lesion_rows: Sequence[Row], output_dir: str, **about: Any) -> dict[str, Any]:
    """Write scores.csv, lesions.csv and summary.json; if one cannot be written, none is changed.

    Args:
        rows: one per case and region or class.
        lesion_rows: one per lesion.
        output_dir: where to write.
        about: more entries for the summary.

    Returns:
        The summary: `about`, and `scores` with, for each region and metric, the number of cases, mean, sd, median,
        quartiles, minimum, maximum and the 95% bootstrap interval of the mean. Cases without a value are left out.
    """
    frame = pd.DataFrame(rows).sort_values("case", kind="stable")  # the interval depends on the order of the cases
    summary: dict[str, Any] = {**about, "scores": {}}
    for (kind, region), part in frame.groupby(["kind", "region"], sort=False):
        summary["scores"][region] = {"kind": kind, **_statistics(part.drop(columns=["case", "kind", "region"]))}
    texts = {
        "scores.csv": csv_text(rows),
        "lesions.csv": csv_text(lesion_rows, () if lesion_rows else LESION_COLUMNS),
        "summary.json": json.dumps(summary, indent=2) + "\n",
    }
    with ExitStack() as all_or_none:
        for name, text in texts.items():
            all_or_none.enter_context(atomic_write(Path(output_dir) / name)).write_text(text, encoding="utf-8")
    return summary


def read_scores(path: Path) -> pd.DataFrame:
    """The rows of scores.csv: one per case and region or class.

    Raises:
        InputError: it is no such table, has no row, a Dice is out of its range, a row does not say what it is about, or
            two rows are about the same.
    """
    rows = read_table(path, ["case", "kind", "region", "dice"])
    if rows.empty:
        raise InputError(f"'{path}' has no row; score at least one case.")
    if not rows["dice"].dropna().between(0, 1).all():
        raise InputError(f"'{path}' has a Dice that is not from 0 to 1; restore or delete it.")
    about = rows[["case", "kind", "region"]]
    if about.isna().to_numpy().any():
        raise InputError(f"'{path}' has a row without its case, kind or region; restore or delete it.")
    if len(twice := about[about.duplicated()]):
        raise InputError(f"'{path}' has two rows for {' '.join(twice.iloc[0])}; restore or delete it.")
    return rows


def _statistics(metrics: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The statistics of each column."""
    names = {"count": "cases", "std": "sd", "25%": "lower_quartile", "50%": "median", "75%": "upper_quartile"}
    statistics = metrics.describe().T.rename(columns=names).astype({"cases": int})
    statistics["interval_low"], statistics["interval_high"] = mean_interval(metrics.to_numpy(float))
    # JSON has no NaN, which is the sd of a single case
    return statistics.astype(object).where(statistics.notna(), None).to_dict("index")


def mean_interval(values: NDArray) -> NDArray:
    """The 95% percentile bootstrap interval of the mean over the first axis (Efron, 1979); (cases, ...) to (2, ...).

    Cases without a value (NaN) are left out.
    """
    cases, known = len(values), ~np.isnan(values)
    draws = np.random.default_rng(0).multinomial(cases, np.full(cases, 1 / cases), RESAMPLES)  # (resamples, cases)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a column without any value
        means = draws @ np.where(known, values, 0) / (draws @ known)
        return np.nanquantile(means, [0.025, 0.975], axis=0)


def interval_text(statistics: Mapping[str, Any], form: str = ".3f") -> str:
    """The `mean` of a summary with its interval as text for tables; empty if no case has a value."""
    if statistics["mean"] is None:
        return ""
    return "{mean:{0}} ({interval_low:{0}} to {interval_high:{0}})".format(form, **statistics)


def mean_text(values: NDArray, form: str = ".3f") -> str:
    """The mean of values (cases,) with its interval as text for tables; cases without a value (NaN) are left out."""
    low, high = mean_interval(values)
    mean = None if np.isnan(values).all() else np.nanmean(values)
    return interval_text({"mean": mean, "interval_low": low, "interval_high": high}, form)


def table(summary: Mapping[str, Any]) -> str:
    """The means ± sd of a summary as text, one line per region."""
    lines: dict[str, dict[str, str]] = {}
    for region, scores in summary["scores"].items():
        line = lines[region if scores["kind"] == "region" else f"{region} ({scores['kind']})"] = {}
        for metric, (heading, decimals) in SHOWN.items():
            if metric in scores:
                mean, sd = scores[metric]["mean"], scores[metric]["sd"]
                if mean is None:
                    continue
                line[heading] = f"{mean:.{decimals}f}" + ("" if sd is None else f" ± {sd:.{decimals}f}")
    return pd.DataFrame.from_dict(lines, orient="index").to_string(na_rep="")
