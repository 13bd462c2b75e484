"""Look through a folder, or a datalist.json, for the cases of a convention.

A convention is an entry of `bundles/common/cohorts.yaml`. A case is a dict with the keys `case`, `patient`,
`image` (one path a modality, in the order asked for, or the path of one 4-D file) and, where there is one, `label`; one
of a datalist also has a `fold`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tumour.errors import InputError

ENDINGS = (".nii.gz", ".nii")


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


def channel_indices(cohort: Mapping[str, Any], modalities: Sequence[str]) -> list[int]:
    """Where each modality stands among the channels of a case as it is read from disk."""
    known = cohort.get("channels") or [name for name in cohort["files"] if name != "label"]
    unknown = [name for name in modalities if name not in known]
    if unknown or not modalities:
        raise InputError(f"modalities {list(modalities)} must be one or more of {list(known)}.")
    return [known.index(name) for name in modalities] if "channels" in cohort else list(range(len(modalities)))


def survey(
    dataset_dir: str,
    cohort: Mapping[str, Any],
    modalities: Sequence[str],
    cohorts: Mapping[str, Mapping[str, Any]] | None = None,
) -> Survey:
    """All cases below a folder or in a datalist, sorted by id, and what was seen on the way.

    Raises:
        InputError: there is no such folder, or no case of this convention in it; where there are cases of another of
            `cohorts`, that one is named.
    """
    channel_indices(cohort, modalities)
    if not dataset_dir or not (Path(dataset_dir).is_dir() or dataset_dir.endswith(".json")):
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
        case["patient"] = patient_of(case, cohort)
    seen.cases.sort(key=lambda case: case["case"])
    return seen


def patient_of(case: Mapping[str, Any], cohort: Mapping[str, Any]) -> str:
    """The patient of a case; of an item that a client hands in, with an image and a label alone, by the file's name."""
    image = case["image"]
    name = case.get("case") or _case_of(Path(image if isinstance(image, str) else image[0]).name, cohort)
    match = re.fullmatch(cohort["patient"], name)
    return match[1] if match else name


def _look(dataset_dir: str, cohort: Mapping[str, Any], modalities: Sequence[str]) -> Survey:
    look = _by_list if dataset_dir.endswith(".json") else _by_folder if "folders" in cohort else _by_suffix
    return look(Path(dataset_dir), cohort, modalities)


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


def _by_list(path: Path, cohort: Mapping[str, Any], modalities: Sequence[str]) -> Survey:
    """The cases of a Decathlon datalist, whose paths start at its folder; `testing` and `test` mean the same."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        parts = {part: list(listed.get(part, [])) for part in ("training", "validation", "testing", "test")}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' is not a datalist ({type(error).__name__}); write one by tools.datalist."
        ) from error
    stored = list(listed.get("modality", {}).values())
    order = [stored.index(name) for name in modalities] if set(modalities) <= set(stored) else range(len(modalities))
    seen = Survey()
    for part, entries in parts.items():
        for entry in entries:
            entry = entry if isinstance(entry, dict) else {"image": entry}
            image, label = entry.get("image") or "", entry.get("label")
            first = Path(image if isinstance(image, str) else image[0])
            case = {"case": entry.get("case", _case_of(first.name, cohort)), "fold": entry.get("fold", part)}
            given = [image] if isinstance(image, str) else [image[index] for index in order if index < len(image)]
            files = [str(path.parent / file) for file in given]
            wanted = [*files, str(path.parent / label)] if label else files
            absent = [file for file in wanted if not Path(file).is_file()]
            if absent or (isinstance(image, str) != ("channels" in cohort)) or len(files) not in (1, len(modalities)):
                why = f"'{absent[0]}' is not there" if absent else f"its image is {image}, not as in this cohort"
                seen.left_out.append(f"{case['case']}: left out, {why}; mend '{path}'.")
                continue
            case |= {"image": files[0] if isinstance(image, str) else files}
            seen.cases.append(case | ({"label": str(path.parent / label)} if label else {}))
    return seen


def _case_of(name: str, cohort: Mapping[str, Any]) -> str:
    """The case id in a file name."""
    stem = next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)
    given = [
        text for files in cohort.get("files", {}).values() for text in ([files] if isinstance(files, str) else files)
    ]
    return next((stem.removesuffix(suffix) for suffix in given if stem.endswith(suffix)), stem)
