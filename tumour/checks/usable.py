"""Check many cases, and leave out those that cannot be used before a run meets them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from tqdm import tqdm
from tumour.cases.case import Case, LeftOut
from tumour.cases.parts import Parts, patients
from tumour.checks.case import CaseCheck, Finding
from tumour.checks.label import contradiction
from tumour.checks.table import Report
from tumour.errors import InputError
from tumour.processes import cores, gather, processes, rank

logger = logging.getLogger("bundle")


def examine(cases: Sequence[Case], check: CaseCheck, workers: int | None = None) -> list[Finding]:
    """The finding of each case, one case per core at a time (unpacking and arithmetic release Python's lock)."""
    pool = ThreadPoolExecutor(workers or cores())
    try:
        findings = list(tqdm(pool.map(check, cases), total=len(cases), desc="checking", unit="case", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
    return note_copies(findings)


def note_copies(findings: list[Finding]) -> list[Finding]:
    """The findings, each with a note of the other cases that hold the same voxels."""
    holders = defaultdict(set)
    for finding in findings:
        for digest in finding.facts.get("digests", {}).values():
            holders[digest].add(finding.case)
    for finding in findings:
        shared = defaultdict(list)  # modalities by the cases that hold them too
        for modality, digest in finding.facts.get("digests", {}).items():
            shared[tuple(sorted(holders[digest] - {finding.case}))].append(modality)
        finding.across = [
            f"its {', '.join(modalities)} are also those of {', '.join(others[:3])}; keep one of them"
            for others, modalities in shared.items()
            if others
        ]
    return findings


class UsableParts:
    """The parts of a split without the cases that cannot be used; check.json and check.csv give the reasons.

    All cases are checked when a part is first needed, those of the test part too, so that a patient who is in two
    parts is noticed. A client that hands in its own data needs no part, and then nothing is looked for.

    Args:
        parts: the split.
        check: finds what is wrong with a case.
        output_dir: folder for check.json and check.csv.
        strict: stop if any case cannot be used.

    Raises (when a part is first needed):
        InputError: the labels contradict the cohort, no case can be used, or `strict` and one cannot.
    """

    def __init__(self, parts: Parts, check: CaseCheck, output_dir: str, strict: bool) -> None:
        self.parts, self.check, self.output_dir, self.strict = parts, check, output_dir, strict

    @cached_property
    def _checked(self) -> tuple[dict[str, list[Case]], list[LeftOut]]:
        cases = [case for part in self.parts.by_name.values() for case in part]
        share = cases[rank() :: processes()]
        found = {finding.case: finding for finding in gather(examine(share, self.check))}
        findings = note_copies([found[case.name] for case in cases])
        before = list(self.parts.found.left_out)
        if not rank():
            Report(findings, before, self.check.cohort.regions).write(self.output_dir)
        contrary = contradiction(findings, self.parts.dataset_dir, self.check.cohort, self.check.cohorts)
        if contrary:
            raise InputError(contrary)
        faulty = {finding.case: finding.left_out for finding in findings if finding.faults}
        if len(faulty) == len(findings):
            raise InputError(f"No case can be used; see '{self.output_dir}/check.csv'. {next(iter(faulty.values()))}")
        left_out = [*before, *faulty.values()]
        if self.strict:
            refuse(left_out)
        for each in faulty.values():
            logger.warning(f"left out, {each}")
        noted = sum(finding.status == "note" for finding in findings)
        used = f"{len(findings) - len(faulty):,} of {len(findings) + len(before):,} cases used"
        logger.info(f"{used}{f', {noted:,} of them with a note' * bool(noted)}; see '{self.output_dir}/check.csv'.")
        by_name = self.parts.by_name.items()
        return {name: [case for case in part if case.name not in faulty] for name, part in by_name}, left_out

    @property
    def train(self) -> list[Case]:
        self.parts.refuse_empty("train")
        return self._checked[0]["train"]

    @property
    def validate(self) -> list[Case]:
        self.parts.refuse_empty("validate")
        return self._checked[0]["validate"]

    @property
    def test(self) -> list[Case]:
        """The cases kept for testing; none if no part was needed."""
        return self._checked[0]["test"] if "_checked" in self.__dict__ else []

    @property
    def left_out(self) -> list[LeftOut]:
        """The cases that the run does without; none if no part was needed."""
        return self._checked[1] if "_checked" in self.__dict__ else []


def patients_of(
    train: Sequence[Case | Mapping[str, Any]],
    validate: Sequence[Case | Mapping[str, Any]],
    usable: UsableParts,
) -> dict[str, list[str]]:
    """The patients of each part of the data; a client may have filled the first two with items of its own."""
    return patients({"train": train, "validate": validate, "test": usable.test}, usable.parts.cohort)


def refuse(left_out: Iterable[LeftOut]) -> None:
    """Stop if any case is left out, with all reasons."""
    lines = [str(each) for each in left_out]
    if lines:
        raise InputError("\n  ".join([f"strict is true and {len(lines):,} cases cannot be used:", *lines]))
