"""Find the cases of a data set by its naming convention, and split them by patient.

A convention is an entry of `cohorts` in `bundles/common/brats.yaml`. A case is a dict with the keys `case`, `patient`,
`image` (one path a modality, in the order asked for, or the path of one 4-D file) and, where there is one, `label`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.errors import InputError

ENDINGS = (".nii.gz", ".nii")
FOLDS = 5
logger = logging.getLogger("bundle")


def channel_indices(cohort: Mapping[str, Any], modalities: Sequence[str]) -> list[int]:
    """Where each modality stands among the channels of a case as it is read from disk."""
    known = cohort.get("channels") or [name for name in cohort["files"] if name != "label"]
    unknown = [name for name in modalities if name not in known]
    if unknown or not modalities:
        raise InputError(f"modalities {list(modalities)} must be one or more of {list(known)}.")
    return [known.index(name) for name in modalities] if "channels" in cohort else list(range(len(modalities)))


def find_cases(dataset_dir: str, cohort: Mapping[str, Any], modalities: Sequence[str]) -> tuple[list[dict], list[str]]:
    """All cases below a folder, sorted by id.

    Returns:
        The cases whose modalities are all there (with or without a label), and one sentence for each case left out.

    Raises:
        InputError: the folder is missing or holds no case of this convention.
    """
    channel_indices(cohort, modalities)
    if not dataset_dir or not Path(dataset_dir).is_dir():
        raise InputError(f"dataset_dir '{dataset_dir}' is not a folder; name the folder that holds the cases.")
    found, notes = (_by_folder if "folders" in cohort else _by_suffix)(Path(dataset_dir), cohort, modalities)
    if not found:
        wanted = cohort.get("folders") or cohort["files"]
        hint = notes[0] if notes else "check dataset_dir and cohort."
        raise InputError(f"No case with {dict(wanted)} and .nii or .nii.gz below '{dataset_dir}'; {hint}")
    for case in found:
        match = re.fullmatch(cohort["patient"], case["case"])
        case["patient"] = match[1] if match else case["case"]
    for note in notes:
        logger.warning(note)
    return sorted(found, key=lambda case: case["case"]), notes


def _nifti_files(root: Path) -> list[tuple[Path, str]]:
    """Every NIfTI file below `root` with its name less the ending; macOS's `._*` litter is passed over."""
    files = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            ending = next((e for e in ENDINGS if name.endswith(e)), None)
            if ending and not name.startswith("."):
                files.append((Path(folder, name), name[: -len(ending)]))
    return files


def _by_suffix(root: Path, cohort: Mapping[str, Any], modalities: Sequence[str]) -> tuple[list[dict], list[str]]:
    suffixes = {
        suffix: name
        for name, given in cohort["files"].items()
        for suffix in ([given] if isinstance(given, str) else given)
    }
    cases: dict[str, dict[str, Path]] = {}
    notes = []
    for path, stem in _nifti_files(root):
        suffix = next((s for s in suffixes if stem.endswith(s)), None)
        if suffix is None:
            continue
        case, name = stem[: -len(suffix)] or path.parent.name, suffixes[suffix]
        files = cases.setdefault(case, {})
        if name in files:
            logger.warning(f"{case}: '{path}' is a second {name} beside '{files[name]}', which is used; remove one.")
        else:
            files[name] = path
    found = []
    for case, files in cases.items():
        missing = [name for name in modalities if name not in files]
        if missing:
            endings = ", ".join(f"{case}{cohort['files'][name]}.nii.gz" for name in missing)
            notes.append(f"{case}: left out, {endings} is not there; add it or name fewer modalities.")
            continue
        item: dict[str, Any] = {"case": case, "image": [str(files[name]) for name in modalities]}
        if "label" in files:
            item["label"] = str(files["label"])
        found.append(item)
    return found, notes


def _by_folder(root: Path, cohort: Mapping[str, Any], modalities: Sequence[str]) -> tuple[list[dict], list[str]]:
    names = cohort["folders"]
    files = _nifti_files(root)
    labels = {stem: str(path) for path, stem in files if path.parent.name == names["label"]}
    found: list[dict[str, Any]] = [
        {"case": stem, "image": str(path)} for path, stem in files if path.parent.name in names["image"]
    ]
    for item in found:
        if item["case"] in labels:
            item["label"] = labels[item["case"]]
    return found, []


def split(cases: Sequence[Mapping[str, Any]], fold: int, test_share: float, seed: int) -> dict[str, list]:
    """Part the labelled cases by patient into `train`, `validate` and `test`.

    The order of the patients is that of a hash of seed and patient, so it hangs on no file order and no machine. The
    first `test_share` of them are for testing alone; of the rest, every fifth (from number `fold`) validates.

    Raises:
        InputError: `fold` is not 0..4, `test_share` is not within 0..1, no case has a label, or a part that is needed
            has no patient.
    """
    if fold not in range(FOLDS):
        raise InputError(f"fold is {fold}; it must be one of 0..{FOLDS - 1}.")
    if not 0 <= test_share <= 1:
        raise InputError(f"test_share is {test_share}; it must lie within 0 and 1.")
    labelled = [case for case in cases if "label" in case]
    if not labelled:
        raise InputError("None of the cases has a label file; training and evaluating need one a case.")
    patients = sorted(
        {case["patient"] for case in labelled}, key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).hexdigest()
    )
    tested = round(len(patients) * test_share)
    part = dict.fromkeys(patients[:tested], "test")
    for number, patient in enumerate(patients[tested:]):
        part[patient] = "validate" if number % FOLDS == fold else "train"
    parts: dict[str, list] = {"train": [], "validate": [], "test": []}
    for case in labelled:
        parts[part[case["patient"]]].append(case)
    return parts


def patients(parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    """The patients of each part of the data."""
    return {name: sorted({case["patient"] for case in cases}) for name, cases in parts.items()}


def never_seen(cases: Sequence[Mapping[str, Any]], record: str) -> list:
    """The cases of patients that neither trained nor selected the model, by the record that lies beside it.

    Raises:
        InputError: no case is left.
    """
    known = json.loads(Path(record).read_text()) if Path(record).is_file() else {"train": [], "validate": []}
    seen = set(known["train"]) | set(known["validate"])
    left = [case for case in cases if case["patient"] not in seen]
    if len(left) < len(cases):
        logger.warning(f"{len(cases) - len(left)} of {len(cases)} cases trained or selected the model: not scored.")
    if not cases:
        raise InputError("The test share holds no patient; raise test_share, or add patients.")
    if not left:
        raise InputError(f"All {len(cases)} cases trained or selected the model ('{record}'); test on other patients.")
    return left


def that_selected(cases: Sequence[Mapping[str, Any]], record: str) -> list:
    """The labelled cases of patients that selected the model, by the record that lies beside it.

    Raises:
        InputError: there is no record, or none of its patients is here.
    """
    if not Path(record).is_file():
        raise InputError(f"'{record}' is not there; train first, or name the folder of the checkpoint by --ckpt_dir.")
    selected = set(json.loads(Path(record).read_text())["validate"])
    left = [case for case in cases if case["patient"] in selected and "label" in case]
    if not left:
        raise InputError(f"None of the patients that selected the model ('{record}') is below dataset_dir.")
    return left


def with_reference(cases: Sequence[Mapping[str, Any]]) -> list[dict]:
    """The cases with their label under the key `reference`, which is read for scoring and never transformed."""
    return [{"reference" if key == "label" else key: value for key, value in case.items()} for case in cases]


def scans_only(cases: Sequence[Mapping[str, Any]]) -> list[dict]:
    """The cases without their labels, as segmenting takes them."""
    return [{key: value for key, value in case.items() if key != "label"} for case in cases]
