"""The cases of a data set, and their split by patient."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tumour.cases.folder import Survey, patient_of, survey
from tumour.errors import InputError
from tumour.scans.series import series_cases

FOLDS = 5
logger = logging.getLogger("bundle")


def find_cases(
    dataset_dir: str,
    cohort: Mapping[str, Any],
    modalities: Sequence[str],
    cohorts: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[list[dict], list[str]]:
    """All cases below a folder, sorted by id.

    Returns:
        The cases whose modalities are all there (with or without a label), and one sentence for each case left out.

    Raises:
        InputError: the folder is missing or holds no case of this convention; where it holds cases of another of
            `cohorts`, that one is named.
    """
    seen = survey(dataset_dir, cohort, modalities, cohorts)
    _warn(seen.sentences())
    if not seen.cases:
        raise InputError(seen.left_out[0])
    return seen.cases, seen.left_out


def find_scans(
    dataset_dir: str,
    cohort: Mapping[str, Any],
    modalities: Sequence[str],
    cohorts: Mapping[str, Mapping[str, Any]],
    series: Mapping[str, Sequence[str]],
    modality_dropout: float,
) -> tuple[list[dict], list[str]]:
    """The same for segmenting: no labels, DICOM as well, and cases that lack a modality if the network knows such.

    Args:
        series: names of the folders of DICOM series by modality, see `tumour.scans.series.series_cases`.
        modality_dropout: with which the network was trained; at 0 it takes complete cases alone.
    """
    dicom = series_cases(dataset_dir, series, modalities) if Path(dataset_dir).is_dir() else []
    seen = _survey_of_series(dicom, modalities) if dicom else survey(dataset_dir, cohort, modalities, cohorts)
    partial = {case["case"]: case["present"].split(",") for case in seen.incomplete}
    if modality_dropout:
        seen.left_out = [sentence for sentence in seen.left_out if sentence.split(":")[0] not in partial]
        seen.cases = sorted(seen.cases + seen.incomplete, key=lambda case: case["case"])
        for case, present in partial.items():
            lacks = ", ".join(name for name in modalities if name not in present)
            logger.warning(f"{case}: has no {lacks}; the network was trained to do without, but not as well.")
    else:
        reason = " The network was trained on complete cases alone (modality_dropout 0)."
        seen.left_out = [text + reason * (text.split(":")[0] in partial) for text in seen.left_out]
    _warn(seen.sentences())
    if not seen.cases:
        raise InputError(seen.left_out[0])
    return scans_only(seen.cases), seen.left_out


def _survey_of_series(cases: Sequence[dict], modalities: Sequence[str]) -> Survey:
    seen = Survey([case for case in cases if "present" not in case])
    seen.incomplete = [case for case in cases if "present" in case]
    for case in seen.incomplete:
        lacks = ", ".join(name for name in modalities if name not in case["present"].split(","))
        seen.left_out.append(f"{case['case']}: left out, it has no series of {lacks}; add it.")
    return seen


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        logger.warning(sentence)


def split(cases: Sequence[Mapping[str, Any]], fold: int, test_share: float, seed: int) -> dict[str, list]:
    """Part the labelled cases by patient into `train`, `validate` and `test`.

    A datalist with a fold for each case of its training part is followed as it stands. Else the order of the patients
    is that of a hash of seed and patient, so it hangs on no file order and no machine. The first `test_share` of them
    are for testing alone; of the rest, every fifth (from number `fold`) validates.

    Raises:
        InputError: `fold` is not 0..4, `test_share` is not within 0..1, no case has a label, or a part that is needed
            has no patient.
    """
    if fold not in range(FOLDS):
        raise InputError(f"fold is {fold}; it must be one of 0..{FOLDS - 1}.")
    if not 0 <= test_share <= 1:
        raise InputError(f"test_share is {test_share}; it must lie within 0 and 1.")
    labelled = [case for case in cases if "label" in case]
    if not labelled:
        raise InputError("None of the cases has a label file; training and evaluating need one a case.")
    folds = {case.get("fold", "training") for case in labelled}
    if folds != {"training"} and "training" not in folds:
        return _as_listed(labelled, fold)
    patients = sorted(
        {case["patient"] for case in labelled}, key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).hexdigest()
    )
    tested = round(len(patients) * test_share)
    part = dict.fromkeys(patients[:tested], "test")
    for number, patient in enumerate(patients[tested:]):
        part[patient] = "validate" if number % FOLDS == fold else "train"
    parts: dict[str, list] = {"train": [], "validate": [], "test": []}
    for case in labelled:
        parts[part[case["patient"]]].append(case)
    return parts


def _as_listed(cases: Sequence[Mapping[str, Any]], fold: int) -> dict[str, list]:
    """The split that a datalist asks for."""
    part_of = {fold: "validate", "validation": "validate", "testing": "test", "test": "test"}
    parts: dict[str, list] = {"train": [], "validate": [], "test": []}
    for case in cases:
        parts[part_of.get(case["fold"], "train")].append(case)
    seen: dict[str, str] = {}
    for part, own in patients(parts).items():
        for patient in own:
            if seen.setdefault(patient, part) != part:
                raise InputError(f"{patient} stands in the {seen[patient]} and the {part} part; mend the datalist.")
    return parts


def patients(
    parts: Mapping[str, Sequence[Mapping[str, Any]]], cohort: Mapping[str, Any] | None = None
) -> dict[str, list[str]]:
    """The patients of each part of the data; a convention tells those of items without ids, as clients hand in."""
    return {
        name: sorted({case.get("patient") or patient_of(case, cohort or {}) for case in cases})
        for name, cases in parts.items()
    }


def never_seen(cases: Sequence[Mapping[str, Any]], record: str) -> list:
    """The cases of patients that neither trained nor selected the model, by the record that lies beside it.

    Raises:
        InputError: no case is left.
    """
    known = json.loads(Path(record).read_text()) if Path(record).is_file() else {"train": [], "validate": []}
    seen = set(known["train"]) | set(known["validate"])
    left = [case for case in cases if case["patient"] not in seen]
    if len(left) < len(cases):
        logger.warning(f"{len(cases) - len(left)} of {len(cases)} cases trained or selected the model: not scored.")
    if not cases:
        raise InputError("The test share holds no patient; raise test_share, or add patients.")
    if not left:
        raise InputError(f"All {len(cases)} cases trained or selected the model ('{record}'); test on other patients.")
    return left


def that_selected(cases: Sequence[Mapping[str, Any]], record: str) -> list:
    """The labelled cases of patients that selected the model, by the record that lies beside it.

    Raises:
        InputError: there is no record, or none of its patients is here.
    """
    if not Path(record).is_file():
        raise InputError(f"'{record}' is not there; train first, or name the folder of the checkpoint by --ckpt_dir.")
    selected = set(json.loads(Path(record).read_text())["validate"])
    left = [case for case in cases if case["patient"] in selected and "label" in case]
    if not left:
        raise InputError(f"None of the patients that selected the model ('{record}') is below dataset_dir.")
    return left


def with_reference(cases: Sequence[Mapping[str, Any]]) -> list[dict]:
    """The cases with their label under the key `reference`, which is read for scoring and never transformed."""
    return [{"reference" if key == "label" else key: value for key, value in case.items()} for case in cases]


def scans_only(cases: Sequence[Mapping[str, Any]]) -> list[dict]:
    """The cases without their labels, as segmenting takes them."""
    return [{key: value for key, value in case.items() if key != "label"} for case in cases]
