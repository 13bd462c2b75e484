"""Write a data set as a Decathlon datalist.json with the folds of this project, which MONAI's other tools read.

python -m tools.datalist --cohort brats2021 --dataset_dir DIR --output datalist.json
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.conventions import convention, task
from tumour.cases.parts import FOLDS, find_cases, patients, split
from tumour.errors import command_line
from tumour.files import save_json


def datalist(
    cohort: str, dataset_dir: str, output: str = "datalist.json", test_share: float = 0.2, seed: int = 0
) -> str:
    """Write datalist.json: `training` with the fold in which a case validates, `testing` with the test share.

    Args:
        cohort: the data set's name, as in bundles/common/cohorts.yaml.
        dataset_dir: the folder as downloaded.
        output: the file to write; paths in it start at its folder.
        test_share: share of the patients that are for testing alone, as in training.
        seed: decides the split, as in training.
    """
    own, brats = convention(cohort), task()
    modalities = brats["modalities"]
    cases, _ = find_cases(str(dataset_dir), own, modalities, brats["cohorts"])
    fold_of: dict[str, int] = {}
    for fold in range(FOLDS):
        parts = split(cases, fold, test_share, seed)
        fold_of |= dict.fromkeys(patients(parts)["validate"], fold)
    root = Path(str(output)).resolve().parent

    def entry(case: Mapping[str, Any]) -> dict[str, Any]:
        image, label = case["image"], case.get("label")
        files = [os.path.relpath(path, root) for path in ([image] if isinstance(image, str) else image)]
        told = {"case": case["case"], "image": files[0] if isinstance(image, str) else files}
        told |= {"label": os.path.relpath(label, root)} if label else {}
        return told | ({"fold": fold_of[case["patient"]]} if label and case["patient"] in fold_of else {})

    entries = [entry(case) for case in cases]
    names = dict(zip(map(str, own["label_values"]), own["classes"], strict=True))
    listed = {
        "name": cohort,
        "modality": dict(enumerate(own.get("channels", modalities))),
        "labels": dict(sorted(names.items())),
        "training": [told for told in entries if "fold" in told],
        "testing": [told for told in entries if "fold" not in told],
    }
    save_json(listed, Path(output))
    return (
        f"{len(listed['training']):,} cases in {FOLDS} folds and {len(listed['testing']):,} for testing in '{output}'."
    )


def main() -> None:
    command_line(datalist, "tools.datalist")


if __name__ == "__main__":
    main()
