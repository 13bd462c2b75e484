"""Check many cases, and leave out those that cannot be used before a run meets them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from tumour.checks.case import CaseCheck, Finding
from tumour.checks.label import contradiction
from tumour.checks.table import Report
from tumour.errors import InputError
from tumour.processes import cores, gather, processes, rank

logger = logging.getLogger("bundle")


def examine(cases: Sequence[Mapping[str, Any]], check: CaseCheck, workers: int | None = None) -> list[Finding]:
    """The finding of each case, a case a core at a time (threads: unpacking and arithmetic leave Python's lock)."""
    pool = ThreadPoolExecutor(workers or cores())
    try:
        findings = list(tqdm(pool.map(check, cases), total=len(cases), desc="checking", unit="case", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
    return tell_duplicates(findings)


def tell_duplicates(findings: list[Finding]) -> list[Finding]:
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


def usable(
    parts: Mapping[str, Sequence[Mapping[str, Any]]],
    left_out: Sequence[str],
    check: CaseCheck,
    regions: Mapping[str, Sequence[str]],
    dataset_dir: str,
    output_dir: str,
    strict: bool,
) -> dict[str, list]:
    """The parts of a split without the cases that cannot be used; check.json and check.csv say why.

    All cases are checked, those of the test part too, so that a patient who stands in two parts is seen.

    Args:
        parts: cases by part, as `tumour.cases.parts.split` gives them.
        left_out: sentences on cases that were left out before.
        check: finds what is wrong with a case.
        regions: class names of each region, by the region's name.
        dataset_dir: the data set's folder.
        output_dir: where the report goes.
        strict: stop if any case cannot be used.

    Raises:
        InputError: the labels contradict the cohort, or `strict` and a case cannot be used.
    """
    cases = [case for part in parts.values() for case in part]
    found = {finding.case: finding for finding in gather(examine(cases[rank() :: processes()], check))}
    findings = tell_duplicates([found[case["case"]] for case in cases])
    if not rank():
        Report(findings, left_out, regions).write(output_dir)
    contrary = contradiction(findings, dataset_dir, check.cohort, check.cohorts, check.classes)
    if contrary:
        raise InputError(contrary)
    faults = {finding.case: finding.sentence for finding in findings if finding.faults}
    if len(faults) == len(findings):
        raise InputError(f"No case can be used; see '{output_dir}/check.csv'. {next(iter(faults.values()))}")
    if strict:
        refuse([*left_out, *faults.values()])
    check.left_out += [*left_out, *faults.values()]
    check.tested += [case for case in parts.get("test", []) if case["case"] not in faults]
    for sentence in faults.values():
        logger.warning(f"left out, {sentence}")
    total, noted = len(findings) + len(left_out), sum(finding.status == "note" for finding in findings)
    logger.info(
        f"{len(findings) - len(faults):,} of {total:,} cases used"
        + f", {noted:,} of them with a note" * bool(noted)
        + f"; see '{output_dir}/check.csv'."
    )
    return {name: [case for case in part if case["case"] not in faults] for name, part in parts.items()}


def refuse(sentences: Sequence[str]) -> None:
    """Stop if there is any sentence, with all of them."""
    if sentences:
        raise InputError("\n  ".join([f"strict is true and {len(sentences):,} cases cannot be used:", *sentences]))
