"""Score anybody's label maps as the challenges do, and write the scores down.

python -m tools.score --reference DIR --prediction DIR --cohort brats2024_met --output DIR
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from tools.challenges import CHALLENGES, case_scores
from tools.conventions import convention
from tools.errors import InputError, command_line, one_of
from tools.files import whole
from tools.metrics import PERFECT, Row
from tools.parallel import cores
from tools.scan import file_fault
from tools.survey import ENDINGS

SHOWN = {  # metric: heading and decimals
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "hd95": ("HD95 mm", 1),
    "sensitivity": ("sensitivity", 3),
    "precision": ("precision", 3),
    "lesion_dice": ("lesion-wise Dice", 3),
}
LESION_COLUMNS = ["case", "kind", "region", "outcome", *"xyz", "reference_ml", "predicted_ml", *PERFECT]


def score_case(
    case: str,
    reference: NDArray,
    prediction: NDArray,
    spacing: Sequence[float],
    challenge: str,
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
) -> tuple[list[Row], list[Row]]:
    """The rows of one case for scores.csv and lesions.csv, by the rules of a challenge.

    The values of both label maps are positions in `classes`, background first; `spacing` is in mm.
    """
    rules = one_of(CHALLENGES, challenge, setting="challenge")
    rows, lesion_rows = case_scores(reference, prediction, spacing, classes, regions, rules)
    return [{"case": case, **row} for row in rows], [{"case": case, **row} for row in lesion_rows]


def write_scores(rows: Sequence[Row], lesion_rows: Sequence[Row], output_dir: str, **about: Any) -> dict[str, Any]:
    """Write scores.csv, lesions.csv and summary.json, all or none of them, from the rows of all cases.

    Returns:
        The summary: all of `about`, and `scores`, which holds for each region and metric the number of cases, mean, sd,
        median, quartiles, extremes and the 95% bootstrap interval of the mean.
    """
    frame = pd.DataFrame(rows)
    summary: dict[str, Any] = {**about, "scores": {}}
    for (kind, region), part in frame.groupby(["kind", "region"], sort=False):
        summary["scores"][region] = {"kind": kind, **_statistics(part.drop(columns=["case", "kind", "region"]))}
    texts = {
        "scores.csv": frame.to_csv(index=False),
        "lesions.csv": pd.DataFrame(lesion_rows, columns=LESION_COLUMNS).to_csv(index=False),
        "summary.json": json.dumps(summary, indent=2) + "\n",
    }
    with ExitStack() as all_or_none:
        for name, text in texts.items():
            all_or_none.enter_context(whole(Path(output_dir) / name)).write_text(text, encoding="utf-8")
    return summary


def _statistics(metrics: pd.DataFrame) -> dict[str, dict[str, Any]]:
    names = {"count": "cases", "std": "sd", "25%": "lower_quartile", "50%": "median", "75%": "upper_quartile"}
    told = metrics.describe().T.rename(columns=names).astype({"cases": int})
    told["interval_low"], told["interval_high"] = mean_interval(metrics.to_numpy(float))
    return told.astype(object).where(told.notna(), None).to_dict("index")  # JSON has no NaN, the sd of one case


def mean_interval(values: NDArray, resamples: int = 2000) -> NDArray:
    """The 95% interval of the mean over the first axis by resampling cases (Efron, 1979); (cases, ...) to (2, ...)."""
    cases = len(values)
    draws = np.random.default_rng(0).multinomial(cases, np.full(cases, 1 / cases), resamples)  # times a case is drawn
    return np.quantile(draws @ values / cases, [0.025, 0.975], axis=0)


def interval_text(mean: float, low: float, high: float, form: str = ".3f") -> str:
    """A mean and its interval, as in tables."""
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def table(summary: Mapping[str, Any]) -> str:
    """The means ± sd of a summary, a line a region."""
    lines: dict[str, dict[str, str]] = {}
    for region, scores in summary["scores"].items():
        line = lines[region if scores["kind"] == "region" else f"{region} ({scores['kind']})"] = {}
        for metric, (heading, decimals) in SHOWN.items():
            if metric in scores:
                mean, sd = scores[metric]["mean"], scores[metric]["sd"]
                line[heading] = f"{mean:.{decimals}f}" + ("" if sd is None else f" ± {sd:.{decimals}f}")
    return pd.DataFrame.from_dict(lines, orient="index").to_string()


def label_files(folder: str, convention: Mapping[str, Any], bare: bool) -> dict[str, Path]:
    """The label map of each case below a folder: `<case><label suffix>.nii.gz` and, if `bare`, also `<case>.nii.gz`."""
    if not Path(folder).is_dir():
        raise InputError(f"'{folder}' is not a folder; name the folder that holds the label maps.")
    given = convention["files"]["label"] if "files" in convention else []
    suffixes = [given] if isinstance(given, str) else given
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*.nii*")):
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending is None or path.name.startswith("."):
            continue
        stem = path.name.removesuffix(ending)
        suffix = next((suffix for suffix in suffixes if stem.endswith(suffix)), "")
        if not (suffix or bare or path.parent.name == convention.get("folders", {}).get("label")):
            continue
        case = stem.removesuffix(suffix) or path.parent.name
        if case in found:
            raise InputError(f"{case}: '{found[case]}' and '{path}' are both its label map; remove one.")
        found[case] = path
    return found


def to_classes(values: NDArray, label_values: Sequence[int], source: str) -> NDArray[np.uint8]:
    """A label map in a data set's own values as positions in `classes`; an InputError names other values."""
    classes = np.full(values.shape, 255, np.uint8)
    for position, value in enumerate(label_values):
        classes[values == value] = position
    if 255 in classes:
        others = np.unique(values[classes == 255])[:5].tolist()
        raise InputError(f"{source} holds {others}, not only {list(label_values)}; check --cohort or the file.")
    return classes


def read_classes(case: str, path: Path, label_values: Sequence[int]) -> tuple[NDArray[np.uint8], Any]:
    """The label map of a file as positions in `classes`, and its image."""
    try:
        image: Any = nib.squeeze_image(nib.load(path))  # type: ignore[attr-defined]
        values = np.asanyarray(image.dataobj).round(3)
    except Exception:
        values = np.array(np.nan)
    if not np.isfinite(values).all():
        raise InputError(f"{case}: {file_fault(str(path))}.")
    if values.ndim != 3:
        raise InputError(f"{case}: '{path}' has the shape {values.shape}, not three axes; write a label map.")
    return to_classes(values, label_values, f"{case}: '{path}'"), image


def _score_files(
    files: tuple[str, Path, Path | None], label_values: Sequence[int], **task: Any
) -> tuple[list[Row], list[Row]] | str:
    """The rows of one case, or what is wrong with its files."""
    case, reference_path, prediction_path = files
    try:
        reference, image = read_classes(case, reference_path, label_values)
        prediction = np.zeros_like(reference)
        if prediction_path is not None:
            prediction, other = read_classes(case, prediction_path, label_values)
            if image.shape != other.shape or not np.allclose(image.affine, other.affine, atol=0.01):  # mm
                raise InputError(
                    f"{case}: '{prediction_path}' {other.shape} is not on the grid of '{reference_path}' {image.shape}"
                    f"{'' if image.shape != other.shape else ' (another affine)'}; resample it to that."
                )
        return score_case(case, reference, prediction, image.header.get_zooms()[:3], **task)
    except InputError as error:
        return str(error)


def score(
    reference: str, prediction: str, cohort: str, output: str, challenge: str | None = None, workers: int | None = None
) -> str:
    """Score a folder of label maps against their references.

    Args:
        reference: folder that holds the references, named as in the data set.
        prediction: folder that holds `<case>.nii.gz` or files named as the references; a missing one scores as empty.
        cohort: data set whose names and label values the files follow, as in bundles/common/brats.yaml.
        output: folder for scores.csv, lesions.csv and summary.json.
        challenge: whose rules; default: the one that belongs to the cohort.
        workers: processes; default: one a core.
    """
    own = convention(cohort)
    challenge = challenge or own["challenge"]
    one_of(CHALLENGES, challenge, setting="challenge")
    if Path(str(reference)).resolve() == Path(str(prediction)).resolve():
        raise InputError(f"--reference and --prediction are both '{reference}'; name the folder of the predictions.")
    references = label_files(str(reference), own, bare=False)
    predictions = label_files(str(prediction), own, bare=True)
    if not references:
        raise InputError(f"No label map of {cohort} below '{reference}'; check --reference and --cohort.")
    if not references.keys() & predictions:
        name = next(iter(references))
        raise InputError(
            f"No label map below '{prediction}' is named after a case, as {name}.nii.gz; check --prediction."
        )
    missing = [case for case in references if case not in predictions]
    job = partial(
        _score_files,
        label_values=own["label_values"],
        challenge=challenge,
        classes=own["classes"],
        regions=own["regions"],
    )
    files = [(case, path, predictions.get(case)) for case, path in references.items()]
    with ProcessPoolExecutor(min(workers or cores(), len(files))) as pool:
        results = list(tqdm(pool.map(job, files), total=len(files), desc="scoring", unit="case", disable=None))
    faults = [result for result in results if isinstance(result, str)]
    if faults:
        raise InputError("\n".join(faults))
    rows, lesion_rows = ([row for result in results for row in result[part]] for part in (0, 1))
    summary = write_scores(rows, lesion_rows, str(output), cohort=cohort, challenge=challenge, missing=missing)
    notes = [f"No prediction, scored as empty: {', '.join(missing)}."] if missing else []
    return "\n".join([table(summary), f"{len(files)} cases, rules of {challenge}, written to '{output}'.", *notes])


def main() -> None:
    command_line(score, "tools.score")


if __name__ == "__main__":
    main()
