"""Read the cases of a Decathlon datalist.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tumour.cases.case import Case, Cases, LeftOut, image_files, repeated, unique_names
from tumour.cohort import Cohort, stem_of
from tumour.errors import InputError, OptionError
from tumour.records import read_json

PARTS = ("training", "validation", "testing", "test")  # the last two mean the same
IMAGE = (str, [str], None)
ENTRY = {"image?": IMAGE, "label?": (str, None), "case?": (str, int), "fold?": (int, str)}
SAME = {"t1": "T1", "t1w": "T1", "t1n": "T1", "t1ce": "T1ce", "t1c": "T1ce", "t1gd": "T1ce", "t2": "T2", "t2w": "T2"}
SAME |= {"flair": "FLAIR", "t2f": "FLAIR"}  # how others call the modalities
DATALIST = {f"{part}?": [(*IMAGE, ENTRY)] for part in PARTS} | {"modality?": {str: str}}


def read_datalist(path: Path, cohort: Cohort, modalities: Sequence[str]) -> Cases:
    """The cases in a datalist. Its paths are relative to its folder.

    Args:
        path: the datalist.
        cohort: how the files are named.
        modalities: the modalities to use, in order.

    Returns:
        The cases, as of a folder: one that lacks a modality is incomplete, and left out with the reason.

    Raises:
        InputError: the file is not a datalist, or two cases have the same id.
    """
    try:
        listed = read_json(path, DATALIST)
    except InputError as error:
        raise InputError(f"{str(error).rpartition(';')[0]}; create one with python -m tools datalist.") from error
    in_parts = [(part, entry) for part in PARTS for entry in listed.get(part, [])]
    entries = [(part, entry if isinstance(entry, dict) else {"image": entry}) for part, entry in in_parts]
    stored = _stored(listed.get("modality", {}))
    images = [image_files(entry.get("image") or []) for _, entry in entries]
    firsts = [Path(files[0] if files else "?") for files in images]
    places = [
        (*first.relative_to(first.anchor).parent.parts, cohort.case_of(first.name))
        for first, (_, entry) in zip(firsts, entries, strict=True)
        if "case" not in entry
    ]
    unique = iter(unique_names(places))
    names = [str(entry["case"]) if "case" in entry else next(unique) for _, entry in entries]
    twice = repeated(names)
    if twice:
        raise InputError(f"'{path}' has two cases called {twice}; give each entry a unique \"case\".")
    wanted = () if cohort.channels else tuple(modalities)
    complete: list[Case] = []
    incomplete: list[Case] = []
    left_out = []
    unused: dict[str, tuple[str, ...]] = {}
    for (part, entry), name, files in zip(entries, names, images, strict=True):
        known = _by_modality(files, cohort, stored)
        if fault := _fault(path, entry, files, cohort, known):
            left_out.append(LeftOut(name, f"{fault}; correct '{path}'"))
            continue
        present = tuple(each for each in wanted if each in known)
        if missing := [each for each in wanted if each not in known]:
            lacks = f"it has no {', '.join(missing)}; add it to '{path}' or use fewer modalities"
            left_out.append(LeftOut(name, lacks))
        if wanted and not present:
            continue
        label = str(path.parent / entry["label"]) if entry.get("label") else None
        paths = tuple(str(path.parent / file) for file in ([known[each] for each in present] or files))
        if len(stems := _stems([*files, *([entry["label"]] if label else [])], cohort)) > 1:
            unused[name] = (f"its files are named after {' and '.join(stems)}; check that they are of one case",)
        case = Case(name, cohort.patient_of(name), paths, present, label, _part_of(part, entry))
        (incomplete if missing else complete).append(case)
    complete.sort(key=lambda case: case.name)
    return Cases(tuple(complete), tuple(incomplete), tuple(left_out), unused)


def descriptions(dataset_dir: str) -> list[Path]:
    """The files that may describe a data set: its datalist, or each dataset.json in its folder or one level below."""
    root = Path(dataset_dir)
    return [root] if root.is_file() else [root / "dataset.json", *sorted(root.glob("*/dataset.json"))]


def require_channels(dataset_dir: str, cohort: Cohort) -> None:
    """Refuse 4-D files if the description of their data set states the channels of the cohort in another order."""
    for path in descriptions(dataset_dir) if cohort.channels else ():
        try:
            stated = _stored(read_json(path, {"modality": {str: str}})["modality"])
        except InputError:
            continue  # missing, or without a statement
        order = [SAME.get(name.lower(), name) for name in stated]
        if order != list(cohort.channels) and sorted(order) == sorted(cohort.channels):
            known = f"but {cohort.name} has {', '.join(cohort.channels)}"
            fix = f'correct that file, or give --cohorts::{cohort.name}::channels "{order}"'
            raise OptionError(f"'{path}' states the channels {', '.join(stated)}, {known}; {fix}.")


def _stored(modality: Mapping[str, str]) -> list[str]:
    """The modalities of a description in the order of the channels, which are its keys."""
    numbered = all(key.isdecimal() for key in modality)
    return [modality[key] for key in (sorted(modality, key=int) if numbered else modality)]


def _part_of(part: str, entry: Mapping[str, Any]) -> str | int:
    """The part of an entry or, of the training part, its fold: what is listed for testing is never trained on."""
    fold = entry.get("fold", part) if part == PARTS[0] else part
    return int(fold) if str(fold).isdecimal() else fold


def _fault(
    path: Path, entry: Mapping[str, Any], files: Sequence[str], cohort: Cohort, known: Mapping[str, str]
) -> str | None:
    """Why an entry cannot be a case of the cohort, or None."""
    listed = [*files, entry["label"]] if entry.get("label") else files
    missing = [str(path.parent / file) for file in listed if not (path.parent / file).exists()]
    if missing:
        return f"'{missing[0]}' does not exist"
    one = len(files) == 1
    if not files or (not one if cohort.channels else one and not known and len(cohort.modalities) > 1):
        wanted = "one 4-D file" if cohort.channels else "a list with one file per modality"
        return f"its image is {entry.get('image')}, but {cohort.name} needs {wanted}"
    if not known and not cohort.channels:
        return f'the modality of its files is unknown: name them as in {cohort.name}, or add "modality"'
    return None


def _stems(files: Sequence[str], cohort: Cohort) -> list[str]:
    """The cases after which files are named, of those whose names end as in the cohort."""
    names = [Path(file).name for file in files]
    return list(dict.fromkeys(cohort.case_of(name) for name in names if cohort.ending_of(stem_of(name))))


def _by_modality(files: Sequence[str], cohort: Cohort, stored: Sequence[str]) -> dict[str, str]:
    """The files by modality, from their names or else from the datalist's `modality`; empty if both fail."""
    by_name: dict[str, str] = {}
    for file in files:
        ending = cohort.ending_of(stem_of(Path(file).name))
        by_name |= {ending[0]: file} if ending else {}
    if len(by_name) == len(files):
        return by_name
    listed = zip(stored, files, strict=True) if len(stored) == len(files) else ()
    return {name: file for name, file in listed if name in cohort.modalities}
