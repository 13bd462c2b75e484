"""Split the cases of a data set by patient, and know which patients a network has seen."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tumour.cases.case import Case, Cases, patient_of
from tumour.cases.find import cases_to_use
from tumour.cohort import Cohort
from tumour.errors import InputError

FOLDS = 5
NAMES = ("train", "validate", "test")
logger = logging.getLogger("bundle")


class Parts:
    """The labelled cases of a data set in three parts by patient; the folder is not read until a part is needed.

    Args:
        dataset_dir, cohort, modalities, cohorts: as in `tumour.cases.find.find_cases`.
        fold, test_share, seed: as in `split`.
    """

    def __init__(
        self,
        dataset_dir: str,
        cohort: Cohort,
        modalities: Sequence[str],
        cohorts: Mapping[str, Cohort],
        fold: int,
        test_share: float,
        seed: int,
    ) -> None:
        self.dataset_dir, self.cohort = dataset_dir, cohort
        self._place = (dataset_dir, cohort, modalities, cohorts)
        self._split = (fold, test_share, seed)

    @cached_property
    def found(self) -> Cases:
        """What lies in the folder."""
        return cases_to_use(*self._place)

    @cached_property
    def by_name(self) -> dict[str, list[Case]]:
        """The cases of each part."""
        return split(self.found.complete, *self._split)

    @property
    def test(self) -> list[Case]:
        self.refuse_empty("test")
        return self.by_name["test"]

    def refuse_empty(self, name: str) -> None:
        """Raise an InputError that says how to fill a part if it holds no case."""
        if self.by_name[name]:
            return
        fold, test_share, _ = self._split
        labelled = [case for case in self.found.complete if case.label]
        if _is_listed(labelled):
            fix = {"test": '"testing"', "validate": f'"validation" (or with "fold": {fold})', "train": '"training"'}[
                name
            ]
            raise InputError(f"'{self.dataset_dir}' lists no labelled case to {name}; list some under {fix}.")
        count = len({case.patient for case in labelled})
        left = count - round(count * test_share)
        if name == "test":
            raise InputError(f"The test share holds none of {count} patients; raise test_share ({test_share}).")
        few = f"{left} of {count} patients are left outside the test share ({test_share})"
        fix = "add patients or lower test_share" if left < 2 else f"choose a fold of 0..{min(left, FOLDS) - 1}"
        raise InputError(f"There is no patient to {name} on in fold {fold}: {few}; {fix}.")


def split(cases: Sequence[Case], fold: int, test_share: float, seed: int) -> dict[str, list[Case]]:
    """Split the labelled cases by patient into `train`, `validate` and `test`.

    A datalist that has folds, or labelled cases in more than its training part, is followed as it is. Otherwise the
    order of the patients is that of a hash of seed and patient, so it depends on no file order and no machine. The
    first `test_share` of them are for testing alone; of the rest, every fifth (from number `fold`) validates.

    Raises:
        InputError: `fold` is not 0..4, `test_share` is not within 0..1, no case has a label, or a datalist puts a
            patient into two parts.
    """
    if fold not in range(FOLDS):
        raise InputError(f"fold is {fold}; it must be one of 0..{FOLDS - 1}.")
    if not 0 <= test_share <= 1:
        raise InputError(f"test_share is {test_share}; it must lie within 0 and 1.")
    labelled = [case for case in cases if case.label]
    if not labelled:
        raise InputError("None of the cases has a label file; training and evaluating need one per case.")
    if _is_listed(labelled):
        return _as_listed(labelled, fold)
    patients = sorted(
        {case.patient for case in labelled}, key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).hexdigest()
    )
    tested = round(len(patients) * test_share)
    part = dict.fromkeys(patients[:tested], "test")
    for number, patient in enumerate(patients[tested:]):
        part[patient] = "validate" if number % FOLDS == fold else "train"
    parts: dict[str, list[Case]] = {name: [] for name in NAMES}
    for case in labelled:
        parts[part[case.patient]].append(case)
    return parts


def _is_listed(cases: Sequence[Case]) -> bool:
    """Whether a datalist says which part or fold cases are in; one that lists training cases alone is split."""
    return {case.part for case in cases} != {"training"}


def _as_listed(cases: Sequence[Case], fold: int) -> dict[str, list[Case]]:
    """The split that a datalist asks for."""
    part_of = {fold: "validate", "validation": "validate", "testing": "test", "test": "test"}
    parts: dict[str, list[Case]] = {name: [] for name in NAMES}
    first: dict[str, str] = {}
    for case in cases:
        part = part_of.get(case.part, "train")
        parts[part].append(case)
        if first.setdefault(case.patient, part) != part:
            both = f"the {first[case.patient]} and the {part} part"
            raise InputError(f"Patient {case.patient} is in {both} of the datalist; put all their cases into one.")
    return parts


def patients(parts: Mapping[str, Sequence[Case | Mapping[str, Any]]], cohort: Cohort) -> dict[str, list[str]]:
    """The patients of each part of the data, whose cases may be a client's items."""
    return {name: sorted({patient_of(case, cohort) for case in cases}) for name, cases in parts.items()}


def not_seen(cases: Sequence[Case], record: str) -> list[Case]:
    """The cases of patients that were used neither for training nor for model selection.

    Args:
        cases: the cases to test on.
        record: patients.json, which a training writes next to its checkpoint.

    Raises:
        InputError: no case is left.
    """
    known = json.loads(Path(record).read_text()) if Path(record).is_file() else {"train": [], "validate": []}
    seen = set(known["train"]) | set(known["validate"])
    left = [case for case in cases if case.patient not in seen]
    used = f"{len(cases) - len(left)} of {len(cases)} cases were used for training or model selection"
    if len(left) < len(cases):
        logger.warning(f"{used} and are not scored.")
    if not cases:
        raise InputError("The test share holds no patient; raise test_share, or add patients.")
    if not left:
        raise InputError(f"{used} (see '{record}'); test on other patients.")
    return left


def used_for_selection(cases: Sequence[Case], record: str) -> list[Case]:
    """The labelled cases of patients that were used for model selection, by the same record.

    Raises:
        InputError: there is no record, or none of its patients is here.
    """
    if not Path(record).is_file():
        raise InputError(f"'{record}' is missing; train first, or give the checkpoint's folder as --ckpt_dir.")
    selected = set(json.loads(Path(record).read_text())["validate"])
    left = [case for case in cases if case.patient in selected and case.label]
    if not left:
        raise InputError(f"None of the patients used for model selection ('{record}') is below dataset_dir.")
    return left
