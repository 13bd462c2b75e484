"""Check all cases before a run, and leave out those that cannot be used."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tumour.cases.case import Case, LeftOut
from tumour.cases.parts import FOLDS, PATIENTS, Parts, is_of, patients, used_patients, warn_of_other_ids
from tumour.checks.case import CaseCheck, Finding
from tumour.checks.label import contradiction
from tumour.checks.strangers import ranges
from tumour.checks.table import Report
from tumour.errors import InputError, OptionError
from tumour.processes import cores, gather, processes, rank

logger = logging.getLogger("bundle")


def examine(cases: Sequence[Case], check: CaseCheck, workers: int | None = None) -> list[Finding]:
    """Check cases in parallel, one per core, and compare them with each other.

    Threads suffice, because decompression and arithmetic release Python's global lock.
    """
    pool = ThreadPoolExecutor(workers or cores())
    try:
        findings = list(tqdm(pool.map(check, cases), total=len(cases), desc="checking", unit="case", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
    return note_copies(findings)


def holders_of_voxels(findings: Iterable[Finding]) -> dict[str, set[str]]:
    """The cases that have a volume with the same voxels, by its hash."""
    holders: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        for digest in finding.facts.get("digests", {}).values():
            holders[digest].add(finding.case)
    return holders


def warn_of_copies(findings: Iterable[Finding], parts: Mapping[str, Sequence[Case]]) -> None:
    """Warn of cases in different parts of the data that have the same voxels, because their scores are too good."""
    part_of = {case.name: name for name, part in parts.items() for case in part}
    shared = {tuple(sorted(cases)) for cases in holders_of_voxels(findings).values()}
    across = sorted(cases for cases in shared if len({part_of[case] for case in cases}) > 1)
    if across:
        named = " and ".join(f"{case} ({part_of[case]})" for case in across[0][:3])
        logger.warning(
            f"Scans of {len(across):,} case(s) are in more than one part of the data, e.g. {named}, which makes scores "
            "too good; keep one of these cases."
        )


def note_copies(findings: list[Finding]) -> list[Finding]:
    """Add a note to each finding whose case has the same voxels as other cases; return the findings."""
    holders = holders_of_voxels(findings)
    for finding in findings:
        shared = defaultdict(list)  # modalities by the other cases with the same voxels
        for modality, digest in finding.facts.get("digests", {}).items():
            shared[tuple(sorted(holders[digest] - {finding.case}))].append(modality)
        finding.across = [
            f"the voxels of its {', '.join(modalities)} are also in {', '.join(others[:3])}; keep one of these cases"
            for others, modalities in shared.items()
            if others
        ]
    return findings


class UsableParts:
    """The parts of a split without the cases that cannot be used; check.json and check.csv list the reasons.

    All cases are checked when a part is first needed, including the test part, so that copies of a scan in different
    parts are found. A client that passes its own data needs none of the parts, so no folder is read.

    Args:
        parts: the split.
        check: checks a case.
        output_dir: folder for check.json and check.csv.
        strict: raise an error if any case cannot be used.

    Raises (when a part is first needed):
        InputError: the labels contradict the cohort, no case can be used, or `strict` is set and a case cannot be used.
    """

    def __init__(self, parts: Parts, check: CaseCheck, output_dir: str, strict: bool) -> None:
        self.parts, self.check, self.output_dir, self.strict = parts, check, output_dir, strict

    @cached_property
    def _checked(self) -> tuple[dict[str, list[Case]], list[LeftOut], dict[str, list[float]]]:
        cases = [case for part in self.parts.by_name.values() for case in part]
        share = cases[rank() :: processes()]
        by_case = {finding.case: finding for finding in gather(examine(share, self.check))}
        findings = note_copies([by_case[case.name] for case in cases])
        incomplete = list(self.parts.found.left_out)
        if not rank():
            Report(findings, incomplete, self.check.cohort.regions).write(self.output_dir)
        problem = contradiction(findings, self.parts.dataset_dir, self.check.cohort, self.check.cohorts)
        if problem:
            raise OptionError(problem)
        faulty = {finding.case: finding.left_out for finding in findings if finding.faults}
        if len(faulty) == len(findings):
            raise InputError(f"No case can be used; see '{self.output_dir}/check.csv'. {next(iter(faulty.values()))}")
        left_out = [*incomplete, *faulty.values()]
        if self.strict:
            refuse(left_out)
        for unusable in faulty.values():
            logger.warning(f"left out, {unusable}")
        notes = sum(finding.status == "note" for finding in findings)
        used = f"{len(findings) - len(faulty):,} of {len(findings) + len(incomplete):,} cases used"
        used += f", {notes:,} of them with a note" if notes else ""
        logger.info(f"{used}; see '{self.output_dir}/check.csv'.")
        by_name = self.parts.by_name.items()
        usable = {name: [case for case in part if case.name not in faulty] for name, part in by_name}
        warn_of_copies([each for each in findings if each.case not in faulty], usable)
        self._require_tumours([by_case[case.name] for case in usable["train"]])
        return usable, left_out, ranges(by_case[case.name].facts for case in usable["train"])

    def _require_tumours(self, findings: Sequence[Finding]) -> None:
        """Refuse a training on labels without any tumour, and warn of a class that none of them has."""
        known = [finding.facts["ml"] for finding in findings if "ml" in finding.facts]
        absent = [name for name in self.check.cohort.classes[1:] if not any(ml.get(name) for ml in known)]
        if known and len(absent) == len(self.check.cohort.classes) - 1:
            raise InputError(
                f"None of the {len(known):,} labels to train on contains a tumour; check them and --cohort."
            )
        if known and absent:
            logger.warning(f"none of the {len(known):,} labels to train on contains {', '.join(absent)}.")

    @property
    def train(self) -> list[Case]:
        self.parts.refuse_empty("train")
        return self._checked[0]["train"]

    @property
    def validate(self) -> list[Case]:
        if self.parts.trains_on_all:  # the curve of the validation then shows patients used for training
            return self.train[::FOLDS]
        self.parts.refuse_empty("validate")
        return self._checked[0]["validate"]

    @property
    def test(self) -> list[Case]:
        """The test cases; none if the cases were not checked, because no part was needed."""
        return self._checked[0]["test"] if "_checked" in self.__dict__ else []

    @property
    def left_out(self) -> list[LeftOut]:
        """The cases that the run does not use; none if the cases were not checked."""
        return self._checked[1] if "_checked" in self.__dict__ else []

    def seen(self) -> dict[str, list[float]]:
        """The range of each measure of the training cases; empty if the cases were not checked, for a client's data."""
        return self._checked[2] if "_checked" in self.__dict__ else {}


def patients_of(
    train: Sequence[Case | Mapping[str, Any]],
    validate: Sequence[Case | Mapping[str, Any]],
    usable: UsableParts,
    keep: str = "best",
    started_from: str = "",
    trained_on: Collection[str] = (),
) -> dict[str, list[str]]:
    """The patient ids in each part of the data; `train` and `validate` may be the items of a client.

    If the last weights are kept, the validation selects nothing: its patients are for testing, unless for training too.
    The patients of the weights in the folder `started_from`, which were trained on the data sets `trained_on`, were
    used for training, whatever part they are in now.
    """
    used = patients({"train": train, "validate": validate, "test": usable.test}, usable.parts.cohort)
    record = Path(started_from, PATIENTS)
    if started_from and record.is_file():
        before = used_patients(record)
        cases = [case for case in (*train, *validate, *usable.test) if isinstance(case, Case)]
        known = {case.patient for case in cases if is_of(case, before)}
        if before:
            warn_of_other_ids(usable.parts.cohort.name, trained_on, bool(known))
        if seen := known & {*used["validate"]} - {*used["train"]}:  # with --fold all they are for training anyway
            logger.warning(
                f"{len(seen):,} of {len(used['validate']):,} patients for validation, e.g. {min(seen)}, are among "
                f"those of '{started_from}', so their scores are too good. Train on others, or with --fold all."
            )
        used |= {"train": sorted({*used["train"], *before, *known}), "test": sorted({*used["test"]} - known)}
    elif started_from:
        logger.warning(f"'{record}' does not exist: which patients '{started_from}' was trained on is not known.")
    if keep == "last":
        return {**used, "validate": [], "test": sorted({*used["test"], *used["validate"]} - {*used["train"]})}
    return used


def refuse(left_out: Iterable[LeftOut]) -> None:
    """Raise an InputError with all reasons if any case is left out."""
    reasons = [str(case) for case in left_out]
    if reasons:
        raise InputError("\n  ".join([f"strict is true, but {len(reasons):,} case(s) cannot be used:", *reasons]))
