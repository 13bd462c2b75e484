"""Check every case of a data set before it is used.

python -m tools check --cohort brats2021 --dataset_dir DIR

Exit status: 0 all cases are good, 1 some are usable with a note, 2 some cannot be used or the check could not run.
"""

from tumour.cases.find import find_cases
from tumour.checks.case import CaseCheck
from tumour.checks.label import contradiction
from tumour.checks.table import Report
from tumour.checks.usable import examine
from tumour.errors import OptionError
from tumour.runs.folders import Claim

from tools.cohorts import cohort_named, known_cohorts, modalities_of


def check(cohort: str, dataset_dir: str, output: str = "check", workers: int | None = None) -> int:
    """Check every case of a data set, print a table and write check.json and check.csv.

    Args:
        cohort: the data set's name, as in bundles/common/cohorts.yaml.
        dataset_dir: the folder as downloaded.
        output: folder for check.json and check.csv.
        workers: cases at a time; default: one per core.

    Returns:
        0 if all cases are good, 1 if some are usable with a note, 2 if some cannot be used.

    Raises:
        InputError: nothing can be checked, or the labels contradict the name of the data set.
    """
    data_set, cohorts = cohort_named(cohort), known_cohorts()
    modalities = modalities_of(data_set)
    found = find_cases(dataset_dir, data_set, modalities, cohorts)
    with Claim("checking", [output]):
        findings = examine(found.complete, CaseCheck(data_set, cohorts, modalities), workers)
    for finding in findings:
        finding.across += found.unused.get(finding.case, ())
    report = Report(findings, found.left_out, data_set.regions, found.strays)
    report.write(output)
    status = 2 if report.counts["unusable"] else 1 if report.counts["note"] else 0
    why = ("", " The exit status is 1: some have a note.", " The exit status is 2: some cannot be used.")[status]
    print(f"{report.table()}\n\n{len(findings) + len(found.left_out):,} cases, written to '{output}'.{why}")
    contrary = contradiction(findings, dataset_dir, data_set, cohorts)
    if contrary:
        raise OptionError(contrary)
    return status
