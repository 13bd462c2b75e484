"""The patients for the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.conventions import convention, task
from tumour.cases.parts import find_cases, split


def cases_of(cohort: str, data: str) -> list[dict[str, Any]]:
    """All labelled cases of a folder."""
    found, _ = find_cases(data, convention(cohort), task()["modalities"])
    return [case for case in found if "label" in case]


def parts_of(cohort: str, data: str, seed: int) -> dict[str, list]:
    """`train`, `validate` and `test`, split as a bundle does by default."""
    return split(cases_of(cohort, data), 0, task()["test_share"], seed)


def folder_with(folder: Path, cases: list[dict[str, Any]]) -> Path:
    """Write a folder with links to the files of some cases."""
    for case in cases:
        files = [*case["image"], case["label"]]
        (folder / case["case"]).mkdir(parents=True, exist_ok=True)
        for path in map(Path, files):
            link = folder / case["case"] / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    return folder
