"""Score any label maps by the rules of the challenges, and write the scores to files.

python -m tools score --reference DIR --prediction DIR --cohort brats2024_met --output DIR
"""

from collections.abc import Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tumour.cases.case import LeftOut
from tumour.cases.folder import nifti_files
from tumour.cohort import LABEL, Cohort
from tumour.errors import InputError, OptionError, one_of
from tumour.processes import cores, end_with_parent
from tumour.runs.folders import Claim
from tumour.scans.grid import difference
from tumour.scans.readers import read_classes
from tumour.scores.challenges import CHALLENGES, score_case
from tumour.scores.metrics import Row
from tumour.scores.tables import table, write_scores

from tools.cohorts import cohort_named


def label_files(folder: str, cohort: Cohort, bare: bool, cases: Collection[str] = ()) -> dict[str, Path]:
    """The label map of each case below a folder: `<case><label suffix>.nii.gz` and, if `bare`, also `<case>.nii.gz`.

    Of `cases` the names are known, so that one may end like a label.
    """
    if not Path(folder).is_dir():
        raise OptionError(f"'{folder}' is not a folder; name the folder with the label maps.")
    suffixes = cohort.suffixes.get(LABEL, ())
    found: dict[str, Path] = {}
    hidden: list[LeftOut] = []
    for path, stem in sorted(nifti_files(Path(folder), hidden)):
        suffix = next((suffix for suffix in suffixes if stem.endswith(suffix) and stem not in cases), "")
        if not (suffix or bare or path.parent.name == cohort.label_folder):
            continue
        case = stem.removesuffix(suffix) or path.parent.name
        if case in found:
            raise InputError(f"{case}: '{found[case]}' and '{path}' are both label maps of this case; remove one.")
        found[case] = path
    if hidden:
        raise InputError(str(hidden[0]))
    return found


def _score_files(
    case: str, reference_path: Path, prediction_path: Path | None, cohort: Cohort, challenge: str
) -> tuple[list[Row], list[Row]] | str:
    """The rows of one case, or what is wrong with its files."""
    try:
        reference = read_classes(str(reference_path), cohort)
        if prediction_path is None:
            prediction = np.zeros_like(reference.data)
        else:
            predicted = read_classes(str(prediction_path), cohort)
            if fault := difference(reference, predicted):
                raise InputError(fault)
            prediction = predicted.data
        return score_case(case, reference.data, prediction, reference.spacing.tolist(), challenge, cohort)
    except InputError as error:
        return f"{case}: {error}."


def _files(reference: str, prediction: str, cohort: Cohort) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
    """The references and the predictions by case.

    Raises:
        InputError: there are none, or none belong together.
    """
    if Path(reference).resolve() == Path(prediction).resolve():
        raise OptionError(f"--reference and --prediction are both '{reference}'; name the folder of the predictions.")
    references = label_files(reference, cohort, bare=False)
    predictions = label_files(prediction, cohort, bare=True, cases=references)
    if not references:  # they may be named like the predictions
        alike = label_files(reference, cohort, bare=True)
        references = alike if alike.keys() & predictions.keys() else {}
    if not references:
        expected = " or ".join(f"<case>{suffix}.nii.gz" for suffix in cohort.suffixes.get(LABEL, ("",)))
        raise OptionError(
            f"No label map of {cohort.name} ({expected}), and none named like a prediction, is below '{reference}'; "
            "check --reference and --cohort."
        )
    if not references.keys() & predictions.keys():
        name = next(iter(references))
        raise OptionError(
            f"No label map below '{prediction}' is named after a case, such as {name}.nii.gz; check --prediction."
        )
    return references, predictions


def score(
    reference: str, prediction: str, cohort: str, output: str, challenge: str | None = None, workers: int | None = None
) -> str:
    """Score a folder of label maps against their references.

    Args:
        reference: folder with the references, named as in the data set or like the predictions.
        prediction: folder with `<case>.nii.gz` or files named like the references; a missing one is scored as empty.
        cohort: name of the data set whose file names and label values are used, as in bundles/common/cohorts.yaml.
        output: folder for scores.csv, lesions.csv and summary.json.
        challenge: the rules; default: those of the cohort.
        workers: processes; default: one per core.
    """
    data_set = cohort_named(cohort)
    challenge = challenge or data_set.challenge
    one_of(CHALLENGES, challenge, setting="challenge")
    references, predictions = _files(reference, prediction, data_set)
    job = partial(_score_files, cohort=data_set, challenge=challenge)
    files = [(case, path, predictions.get(case)) for case, path in references.items()]
    pool = ProcessPoolExecutor(min(workers or cores(), len(files)), initializer=end_with_parent)
    with Claim("scoring", [output]), pool:
        scored = pool.map(job, *zip(*files, strict=True))
        results = list(tqdm(scored, total=len(files), desc="scoring", unit="case", disable=None))
    faults = [result for result in results if isinstance(result, str)]
    if faults:
        raise InputError("\n".join(faults))
    rows, lesion_rows = ([row for result in results for row in result[part]] for part in (0, 1))
    missing, extra = (sorted(a.keys() - b.keys()) for a, b in ((references, predictions), (predictions, references)))
    summary = write_scores(rows, lesion_rows, output, cohort=cohort, challenge=challenge, missing=missing)
    notes = [f"No prediction, scored as empty: {', '.join(missing)}."] if missing else []
    notes += [f"Label maps that belong to no case, not scored: {', '.join(extra)}."] if extra else []
    return "\n".join([table(summary), f"{len(files)} cases, rules of {challenge}, written to '{output}'.", *notes])
