"""Write the cases and folds of a data set to a datalist.json, for other tools of MONAI.

python -m tools datalist --cohort brats2021 --dataset_dir DIR --output datalist.json
"""

import os
from pathlib import Path
from typing import Any

from tumour.cases.case import Case
from tumour.cases.find import find_cases
from tumour.cases.parts import FOLDS, split
from tumour.errors import InputError, OptionError
from tumour.files import save_json
from tumour.records import read_json

from tools.cohorts import cohort_named, known_cohorts, modalities_of


def require_datalist_of_ours(path: Path) -> None:
    """Refuse to replace another file, such as the dataset.json of a data set."""
    try:
        if path.exists():
            read_json(path, {part: [{"case": str}] for part in ("training", "testing")})
    except InputError as error:
        other = f"'{path}' was not written by this command and would be replaced; give another --output."
        raise OptionError(other) from error


def datalist(
    cohort: str, dataset_dir: str, output: str = "datalist.json", test_share: float = 0.2, seed: int = 0
) -> str:
    """Write datalist.json: `training` with the fold of each case, in which it is used for validation, and `testing`.

    Args:
        cohort: the data set's name, as in bundles/common/cohorts.yaml.
        dataset_dir: the folder as downloaded.
        output: the file to write; its paths are relative to its folder.
        test_share: share of the patients used only for testing, as in training.
        seed: determines the split, as in training.
    """
    data_set = cohort_named(cohort)
    cases = find_cases(dataset_dir, data_set, modalities_of(data_set), known_cohorts()).complete
    fold_of: dict[str, int] = {}
    for fold in range(FOLDS):
        fold_of |= {case.patient: fold for case in split(cases, fold, test_share, seed)["validate"]}
    require_datalist_of_ours(Path(output))
    root = Path(output).resolve().parent

    def entry(case: Case) -> dict[str, Any]:
        files = [os.path.relpath(path, root) for path in case.images]
        entry: dict[str, Any] = {"case": case.name, "image": files if case.modalities else files[0]}
        entry |= {"label": os.path.relpath(case.label, root)} if case.label else {}
        return entry | ({"fold": fold_of[case.patient]} if case.label and case.patient in fold_of else {})

    entries = [entry(case) for case in cases]
    labels = sorted(zip(data_set.label_values, data_set.classes, strict=True))
    listed = {
        "name": cohort,
        "modality": dict(enumerate(data_set.channels or modalities_of(data_set))),
        "labels": {str(value): name for value, name in labels},
        "training": [entry for entry in entries if "fold" in entry],
        "testing": [entry for entry in entries if "fold" not in entry],
    }
    save_json(listed, Path(output))
    count, tests = len(listed["training"]), len(listed["testing"])
    return f"{count:,} cases in {FOLDS} folds and {tests:,} for testing in '{output}'."
