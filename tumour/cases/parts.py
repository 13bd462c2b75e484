"""Split the cases of a data set by patient, and look up which patients were used for training."""

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tumour.cases.case import Case, Cases, patient_of
from tumour.cases.find import cases_to_use
from tumour.cohort import Cohort
from tumour.errors import InputError, OptionError
from tumour.records import read_json

FOLDS, ALL = 5, "all"
NAMES = ("train", "validate", "test")
PATIENTS = "patients.json"  # next to weights: the patients of each part of the data that they were trained with
logger = logging.getLogger("bundle")


class Parts:
    """The labelled cases of a data set, split by patient into three parts; the folder is read when a part is needed.

    Args:
        dataset_dir, cohort, modalities, cohorts: as in `tumour.cases.find.find_cases`.
        fold, test_share, seed, folds: as in `split`.
    """

    def __init__(
        self,
        dataset_dir: str,
        cohort: Cohort,
        modalities: Sequence[str],
        cohorts: Mapping[str, Cohort],
        fold: int | str,
        test_share: float,
        seed: int,
        folds: int = FOLDS,
    ) -> None:
        self.dataset_dir, self.cohort = dataset_dir, cohort
        self._place = (dataset_dir, cohort, modalities, cohorts)
        self._split = (fold, test_share, seed, folds)

    @cached_property
    def found(self) -> Cases:
        """The cases in the folder."""
        return cases_to_use(*self._place)

    @cached_property
    def by_name(self) -> dict[str, list[Case]]:
        """The cases of each part; the log mentions what may not be intended."""
        self._remark([case for case in self.found.complete if case.label])
        return split(self.found.complete, *self._split)

    def _remark(self, labelled: Sequence[Case]) -> None:
        """Log which cases have no label, which labels are elsewhere, and which cases may be of one patient."""
        count = len(self.found.complete)
        if 0 < len(labelled) < count:
            bare = next(case.name for case in self.found.complete if not case.label)
            logger.warning(f"{count - len(labelled):,} of {count:,} cases have no label and are not used, e.g. {bare}.")
        apart = [case.label for case in labelled if Path(str(case.label)).parent != Path(case.images[0]).parent]
        if apart and not self.cohort.label_folder and Path(self.dataset_dir).is_dir():
            logger.info(f"labels in other folders than their scans: {len(apart):,}, e.g. '{apart[0]}'.")
        if pair := self._same_id():
            names = " and ".join(case.name for case in pair)
            logger.warning(
                f"{names} have files with the same id in different folders and count as two patients; if they are one, "
                "put them into the same part with a datalist (docs/data.md)."
            )

    def _same_id(self) -> tuple[Case, Case] | None:
        """Two labelled cases of different patients whose files are named after the same case, or None."""
        first: dict[str, Case] = {}
        for case in (case for case in self.found.complete if case.label):
            stem = self.cohort.case_of(Path(case.images[0]).name)
            if stem and first.setdefault(stem, case).patient != case.patient:
                return first[stem], case
        return None

    @property
    def trains_on_all(self) -> bool:
        """Whether no patient outside the test share is held out."""
        return self._split[0] == ALL

    @cached_property
    def test(self) -> list[Case]:
        """The cases to test on; the log says if these are not all."""
        self.refuse_empty("test")
        test, labelled = self.by_name["test"], sum(map(len, self.by_name.values()))
        if len(test) < labelled:
            why = "the datalist" if _is_listed(test) else f"--test_share {self._split[1]}"
            logger.info(f"testing on {len(test):,} of {labelled:,} cases, by {why}.")
        return test

    def refuse_empty(self, name: str) -> None:
        """Raise an InputError that says how to fill a part if it holds no case."""
        if self.by_name[name]:
            return
        fold, test_share, _, folds = self._split
        labelled = [case for case in self.found.complete if case.label]
        if _is_listed(labelled):
            listed = {"train": '"training"', "validate": f'"validation" (or with "fold": {fold})', "test": '"testing"'}
            raise InputError(f"'{self.dataset_dir}' lists no labelled case to {name}; list some under {listed[name]}.")
        count = len({case.patient for case in labelled})
        left = count - round(count * test_share)
        if name == "test":
            fix = "raise it, to 1.0 to test on all"
            raise OptionError(f"A test_share of {test_share} holds none of {count} patients; {fix}.")
        few = f"{left} of {count} patients are left outside the test share ({test_share})"
        fix = "add patients or lower test_share"
        if left >= 2:
            fix = f"choose a fold of 0..{min(left, folds) - 1}" + (f", or {left} folds" if left < folds else "")
        raise OptionError(f"There is no patient to {name} on in fold {fold}: {few}; {fix}.")


def split(
    cases: Sequence[Case], fold: int | str, test_share: float, seed: int, folds: int = FOLDS
) -> dict[str, list[Case]]:
    """Split the labelled cases by patient into `train`, `validate` and `test`.

    If a datalist has folds, or labelled cases outside its training part, its split is used. Otherwise the patients are
    sorted by a hash of seed and patient id, so the split is the same for any order of files and on any machine. The
    first `test_share` of them are for testing; of the rest, one fold is for validation: of five folds, every fifth.

    Args:
        cases: the cases; those without a label are not used.
        fold: from 0 to folds - 1, which patients are for validation; `all`: all are for training, none for validation.
        test_share: share of the patients for testing, 0..1.
        seed: changes the order of the patients.
        folds: number of folds.

    Raises:
        InputError: `fold` or `test_share` is out of range, no case has a label, or a datalist has one patient in two
            parts.
    """
    if fold != ALL and fold not in range(folds):
        raise OptionError(f"fold is {fold}; it must be a whole number from 0 to {folds - 1}, or all.")
    if not 0 <= test_share <= 1:
        raise OptionError(f"test_share is {test_share}; it must be between 0 and 1.")
    labelled = [case for case in cases if case.label]
    if not labelled:
        raise InputError("None of the cases has a label file; training and evaluation need one label per case.")
    if _is_listed(labelled):
        return _as_listed(labelled, fold)
    patients = sorted(
        {case.patient for case in labelled}, key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).hexdigest()
    )
    tested = round(len(patients) * test_share)
    part = dict.fromkeys(patients[:tested], "test")
    for number, patient in enumerate(patients[tested:]):
        part[patient] = "validate" if number % folds == fold else "train"
    parts: dict[str, list[Case]] = {name: [] for name in NAMES}
    for case in labelled:
        parts[part[case.patient]].append(case)
    return parts


def _is_listed(cases: Sequence[Case]) -> bool:
    """Whether a datalist says which part or fold cases are in; one that lists training cases alone is split."""
    return {case.part for case in cases} != {"training"}


def _as_listed(cases: Sequence[Case], fold: int | str) -> dict[str, list[Case]]:
    """The split that the parts and folds in a datalist define."""
    part_of = {
        "validation": "train" if fold == ALL else "validate",
        "testing": "test",
        "test": "test",
        fold: "validate",
    }
    parts: dict[str, list[Case]] = {name: [] for name in NAMES}
    part_of_patient: dict[str, str] = {}
    for case in cases:
        part = part_of.get(case.part, "train")
        parts[part].append(case)
        if part_of_patient.setdefault(case.patient, part) != part:
            both = f"the {part_of_patient[case.patient]} and the {part} part"
            raise InputError(f"Patient {case.patient} is in {both} of the datalist; put all their cases into one.")
    return parts


def patients(parts: Mapping[str, Sequence[Case | Mapping[str, Any]]], cohort: Cohort) -> dict[str, list[str]]:
    """The patient ids in each part of the data; its cases may also be a client's items."""
    return {name: sorted({patient_of(case, cohort) for case in cases}) for name, cases in parts.items()}


def recorded_patients(path: Path) -> dict[str, list[str]]:
    """The patients of each part in patients.json, which training writes next to its checkpoint.

    Raises:
        InputError: the file is missing or contains something else.
    """
    return {"test": [], **read_json(path, {"train": [str], "validate": [str], "test?": [str]})}


def used_patients(record: Path) -> set[str]:
    """The patients in a patients.json that were used for training or model selection."""
    known = recorded_patients(record)
    return {*known["train"], *known["validate"]}


def not_seen(cases: Sequence[Case], checkpoint: str, cohort: str = "", trained_on: Collection[str] = ()) -> list[Case]:
    """The cases of patients that were used neither for training nor for model selection.

    Args:
        cases: the cases to test on.
        checkpoint: the weights; patients.json is next to them.
        cohort: name of the data set of the cases.
        trained_on: names of the data sets that the weights were trained on.

    Raises:
        InputError: no case is left.
    """
    record = Path(checkpoint).with_name(PATIENTS)
    used: set[str] = set()
    if record.is_file():
        used = used_patients(record)
    else:
        logger.warning(f"'{record}' does not exist: if patients to test on were used for training is not known.")
    unused = [case for case in cases if not is_of(case, used)]
    count = f"{len(cases) - len(unused)} of {len(cases)} cases were used for training or model selection"
    if not cases:
        raise OptionError("The test part has no patient; increase test_share or add patients.")
    if not unused:
        raise OptionError(f"{count} (see '{record}'); test on other patients.")
    if len(unused) < len(cases):
        logger.warning(f"{count} and are not scored.")
    if used:
        warn_of_other_ids(cohort, trained_on, len(unused) < len(cases))
    return unused


def warn_of_other_ids(cohort: str, trained_on: Collection[str], known: bool) -> None:
    """Warn that the patients of a data set may be those of others that weights were trained on.

    Args:
        cohort: its name.
        trained_on: names of all data sets that the weights were trained on.
        known: whether any patient has the id of one used for training; without `cohort` in `trained_on`, the ids of
            the others are then the same.
    """
    others = [name for name in trained_on if name != cohort]
    if others and (cohort in trained_on or not known):
        logger.warning(
            f"patients of {cohort} may have been used for training with other ids: the weights were trained on "
            f"{', '.join(others)}, and the same patients have other ids in other years of BraTS. Check that none of "
            "these was used."
        )


def is_of(case: Case, known: Collection[str]) -> bool:
    """Whether a case is of one of these patients, also if it or the patient is named after its folders.

    Another cohort's pattern may have recorded the case as the patient: Brats18_A_1, whose patient is Brats18_A.
    """
    ends = (case.patient.endswith(f"_{each}") or each.endswith(f"_{case.patient}") for each in known if each)
    return case.name in known or case.patient in known or any(ends)


def used_for_selection(cases: Sequence[Case], record: str) -> list[Case]:
    """The labelled cases of patients that were used for model selection, but not for training.

    Args:
        cases: the cases of the data set.
        record: path of patients.json, which training writes next to its checkpoint.

    Raises:
        InputError: there is no record, or no case of its patients.
    """
    if not Path(record).is_file():
        raise OptionError(f"'{record}' does not exist; train first, or give the checkpoint's folder as --ckpt_dir.")
    known = recorded_patients(Path(record))
    selected = {*known["validate"]} - {*known["train"]}  # in both: known to the weights of `start_from`
    if not selected:
        raise OptionError(
            f"According to '{record}' no patient was used for model selection of these weights and not for training; "
            "fit to weights trained with --keep best and one --fold, or choose an after-treatment by `make best`."
        )
    found = [case for case in cases if case.label and {case.patient, case.name} & selected]  # as in `not_seen`
    if not found:
        few = f"dataset_dir has no labelled case of the patients that were used for model selection ('{record}')"
        raise OptionError(f"{few}; give the data set that the network was trained on.")
    return found
