"""Check every case of a data set before it is used, and say of each whether it is good.

python -m tools.check --cohort brats2021 --dataset_dir DIR

Exit status: 0 all cases are good, 1 some are usable with a note, 2 some cannot be used or the check could not run.
"""

from __future__ import annotations

import sys

import fire

from tools.conventions import convention, task
from tumour.cases.folder import survey
from tumour.checks.case import CaseCheck
from tumour.checks.label import contradiction
from tumour.checks.table import Report
from tumour.checks.usable import examine
from tumour.errors import InputError


def check(cohort: str, dataset_dir: str, output: str = "check", workers: int | None = None) -> int:
    """Check every case of a data set, print a table and write check.json and check.csv.

    Args:
        cohort: the data set's name, as in bundles/common/cohorts.yaml.
        dataset_dir: the folder as downloaded.
        output: folder for check.json and check.csv.
        workers: cases at a time; default: one a core.

    Returns:
        0 if all cases are good, 1 if some are usable with a note, 2 if some cannot be used.

    Raises:
        InputError: nothing can be checked, or the labels contradict the name of the data set.
    """
    own, brats = convention(cohort), task()
    cohorts, modalities = brats["cohorts"], brats["modalities"]
    seen = survey(str(dataset_dir), own, modalities, cohorts)
    findings = examine(seen.cases, CaseCheck(cohort, cohorts, own["classes"], modalities), workers)
    for finding in findings:
        finding.across += seen.doubts.get(finding.case, [])
    report = Report(findings, seen.left_out, own["regions"], seen.strays)
    report.write(str(output))
    print(f"{report.table()}\n\n{len(findings) + len(seen.left_out):,} cases, written to '{output}'.")
    contrary = contradiction(findings, str(dataset_dir), cohort, cohorts, own["classes"])
    if contrary:
        raise InputError(contrary)
    return 2 if report.counts["unusable"] else 1 if report.counts["note"] else 0


def main() -> None:
    try:
        status = fire.Fire(check, name="tools.check", serialize=lambda _: None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
