"""Score anybody's label maps as the challenges do, and write the scores down.

python -m tools.score --reference DIR --prediction DIR --cohort brats2024_met --output DIR
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tools.conventions import convention
from tumour.cases.folder import ENDINGS
from tumour.errors import InputError, command_line, one_of
from tumour.processes import cores
from tumour.scans.label_map import read_classes
from tumour.scores.challenges import CHALLENGES, score_case
from tumour.scores.metrics import Row
from tumour.scores.tables import table, write_scores


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
        cohort: data set whose names and label values the files follow, as in bundles/common/cohorts.yaml.
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
