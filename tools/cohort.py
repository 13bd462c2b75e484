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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.dicom import series_cases
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


@dataclass
class Survey:
    """What lies below a folder, seen through a convention.

    Args:
        cases: those whose modalities are all there, with or without a label.
        left_out: one sentence for each other case.
        incomplete: those of them that have at least one modality; `present` names theirs, as `T1,FLAIR`.
        doubts: sentences on a case's files that are not used, by case.
        strays: NIfTI files that belong to no case.
    """

    cases: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    incomplete: list[dict[str, Any]] = field(default_factory=list)
    doubts: dict[str, list[str]] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        return [f"{case}: {text}." for case, texts in self.doubts.items() for text in texts] + self.left_out

    def doubt(self, case: str, sentence: str) -> None:
        self.doubts.setdefault(case, []).append(sentence)


def find_cases(
    dataset_dir: str,
    cohort: Mapping[str, Any],
    modalities: Sequence[str],
    cohorts: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[list[dict], list[str]]:
    """All cases below a folder, sorted by id.

    Returns:
        The cases whose modalities are all there (with or without a label), and one sentence for each case left out.

    Raises:
        InputError: the folder is missing or holds no case of this convention; where it holds cases of another of
            `cohorts`, that one is named.
    """
    seen = survey(dataset_dir, cohort, modalities, cohorts)
    _warn(seen.sentences())
    if not seen.cases:
        raise InputError(seen.left_out[0])
    return seen.cases, seen.left_out


def find_scans(
    dataset_dir: str,
    cohort: Mapping[str, Any],
    modalities: Sequence[str],
    cohorts: Mapping[str, Mapping[str, Any]],
    series: Mapping[str, Sequence[str]],
    modality_dropout: float,
) -> tuple[list[dict], list[str]]:
    """The same for segmenting: no labels, DICOM as well, and cases that lack a modality if the network knows such.

    Args:
        series: names of the folders of DICOM series by modality, see `tools.dicom.series_cases`.
        modality_dropout: with which the network was trained; at 0 it takes complete cases alone.
    """
    dicom = series_cases(dataset_dir, series, modalities) if Path(dataset_dir).is_dir() else []
    seen = _survey_of_series(dicom, modalities) if dicom else survey(dataset_dir, cohort, modalities, cohorts)
    partial = {case["case"]: case["present"].split(",") for case in seen.incomplete}
    if modality_dropout:
        seen.left_out = [sentence for sentence in seen.left_out if sentence.split(":")[0] not in partial]
        seen.cases = sorted(seen.cases + seen.incomplete, key=lambda case: case["case"])
        for case, present in partial.items():
            lacks = ", ".join(name for name in modalities if name not in present)
            logger.warning(f"{case}: has no {lacks}; the network was trained to do without, but not as well.")
    else:
        reason = " The network was trained on complete cases alone (modality_dropout 0)."
        seen.left_out = [text + reason * (text.split(":")[0] in partial) for text in seen.left_out]
    _warn(seen.sentences())
    if not seen.cases:
        raise InputError(seen.left_out[0])
    return scans_only(seen.cases), seen.left_out


def _survey_of_series(cases: Sequence[dict], modalities: Sequence[str]) -> Survey:
    seen = Survey([case for case in cases if "present" not in case])
    seen.incomplete = [case for case in cases if "present" in case]
    for case in seen.incomplete:
        lacks = ", ".join(name for name in modalities if name not in case["present"].split(","))
        seen.left_out.append(f"{case['case']}: left out, it has no series of {lacks}; add it.")
    return seen


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        logger.warning(sentence)


def survey(
    dataset_dir: str,
    cohort: Mapping[str, Any],
    modalities: Sequence[str],
    cohorts: Mapping[str, Mapping[str, Any]] | None = None,
) -> Survey:
    """The same, with all that was seen on the way."""
    channel_indices(cohort, modalities)
    if not dataset_dir or not Path(dataset_dir).is_dir():
        raise InputError(f"dataset_dir '{dataset_dir}' is not a folder; name the folder that holds the cases.")
    seen = _look(dataset_dir, cohort, modalities)
    if not seen.cases + seen.incomplete:
        wanted = cohort.get("folders") or cohort["files"]
        hint = seen.left_out[0] if seen.left_out else "check dataset_dir and cohort."
        fitting = [name for name, other in (cohorts or {}).items() if _look(dataset_dir, other, modalities).cases]
        if fitting:
            hint = f"its files are named as in {' or '.join(fitting)}: name that by --cohort."
        raise InputError(f"No case with {dict(wanted)} and .nii or .nii.gz below '{dataset_dir}'; {hint}")
    for case in seen.cases + seen.incomplete:
        match = re.fullmatch(cohort["patient"], case["case"])
        case["patient"] = match[1] if match else case["case"]
    seen.cases.sort(key=lambda case: case["case"])
    return seen


def _look(dataset_dir: str, cohort: Mapping[str, Any], modalities: Sequence[str]) -> Survey:
    return (_by_folder if "folders" in cohort else _by_suffix)(Path(dataset_dir), cohort, modalities)


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


def _by_suffix(root: Path, cohort: Mapping[str, Any], modalities: Sequence[str]) -> Survey:
    suffixes = {
        suffix: name
        for name, given in cohort["files"].items()
        for suffix in ([given] if isinstance(given, str) else given)
    }
    cases: dict[str, dict[str, Path]] = {}
    seen = Survey()
    for path, stem in _nifti_files(root):
        suffix = next((s for s in suffixes if stem.endswith(s)), None)
        if suffix is None:
            seen.strays.append(str(path))
            continue
        case, name = stem[: -len(suffix)] or path.parent.name, suffixes[suffix]
        files = cases.setdefault(case, {})
        if name in files:
            seen.doubt(case, f"'{path}' is a second {name} beside '{files[name]}', which is used; remove one")
        else:
            files[name] = path
    for case, files in cases.items():
        missing = [name for name in modalities if name not in files]
        if missing:
            endings = ", ".join(f"{case}{cohort['files'][name]}.nii.gz" for name in missing)
            seen.left_out.append(f"{case}: left out, {endings} is not there; add it or name fewer modalities.")
        present = [name for name in modalities if name in files]
        item: dict[str, Any] = {"case": case, "image": [str(files[name]) for name in present]}
        item |= {"label": str(files["label"])} if "label" in files else {}
        if not missing:
            seen.cases.append(item)
        elif present:
            seen.incomplete.append(item | {"present": ",".join(present)})
    return seen


def _by_folder(root: Path, cohort: Mapping[str, Any], modalities: Sequence[str]) -> Survey:
    names = cohort["folders"]
    seen = Survey()
    cases: dict[str, dict[str, Any]] = {}
    labels: dict[str, str] = {}
    for path, stem in _nifti_files(root):
        if path.parent.name == names["label"]:
            labels[stem] = str(path)
        elif path.parent.name not in names["image"]:
            seen.strays.append(str(path))
        elif stem in cases:
            seen.doubt(stem, f"'{path}' is a second image beside '{cases[stem]['image']}', which is used; remove one")
        else:
            cases[stem] = {"case": stem, "image": str(path)}
    for case, label in labels.items():
        if case in cases:
            cases[case]["label"] = label
        else:
            seen.left_out.append(f"{case}: left out, '{label}' has no image; add it to {names['image'][0]}.")
    seen.cases = list(cases.values())
    return seen


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


def with_reference(cases: Sequence[Mapping[str, Any]]) -> list[dict]:
    """The cases with their label under the key `reference`, which is read for scoring and never transformed."""
    return [{"reference" if key == "label" else key: value for key, value in case.items()} for case in cases]


def scans_only(cases: Sequence[Mapping[str, Any]]) -> list[dict]:
    """The cases without their labels, as segmenting takes them."""
    return [{key: value for key, value in case.items() if key != "label"} for case in cases]
