"""The patients that the benchmarks work on."""

from collections.abc import Sequence
from pathlib import Path

from tumour.cases.case import Case
from tumour.cases.find import find_cases
from tumour.cases.parts import split

from tools.cohorts import cohort_named, modalities_of

TEST_SHARE = 0.2  # as in bundles/common/brats.yaml


def cases_of(cohort: str, data: str) -> list[Case]:
    """All labelled cases of a folder."""
    data_set = cohort_named(cohort)
    return [case for case in find_cases(data, data_set, modalities_of(data_set)).complete if case.label]


def parts_of(cohort: str, data: str, seed: int) -> dict[str, list[Case]]:
    """`train`, `validate` and `test` as a bundle splits them by default."""
    return split(cases_of(cohort, data), 0, TEST_SHARE, seed)


def folder_with(folder: Path, cases: Sequence[Case]) -> Path:
    """A folder with links to the files of some cases."""
    for case in cases:
        (folder / case.name).mkdir(parents=True, exist_ok=True)
        for path in map(Path, case.files.values()):
            link = folder / case.name / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    return folder
