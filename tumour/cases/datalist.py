"""Read the cases of a Decathlon datalist.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tumour.cases.case import Case, Cases, LeftOut, image_files, repeated, unique_names
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.records import read_json

PARTS = ("training", "validation", "testing", "test")  # the last two mean the same
IMAGE = (str, [str], None)
ENTRY = {"image?": IMAGE, "label?": (str, None), "case?": (str, int), "fold?": (int, str)}
DATALIST = {f"{part}?": [(*IMAGE, ENTRY)] for part in PARTS} | {"modality?": {str: str}}


def read_datalist(path: Path, cohort: Cohort, modalities: Sequence[str]) -> Cases:
    """The cases in a datalist. Its paths are relative to its folder.

    Args:
        path: the datalist.
        cohort: how the files are named.
        modalities: the modalities to use, in order.

    Raises:
        InputError: the file is not a datalist, or two cases have the same id.
    """
    try:
        listed = read_json(path, DATALIST)
    except InputError as error:
        raise InputError(f"{str(error).rpartition(';')[0]}; create one with python -m tools datalist.") from error
    in_parts = [(part, entry) for part in PARTS for entry in listed.get(part, [])]
    entries = [(part, entry if isinstance(entry, dict) else {"image": entry}) for part, entry in in_parts]
    stored = list(listed.get("modality", {}).values())
    images = [image_files(entry.get("image") or []) for _, entry in entries]
    firsts = [Path(files[0] if files else "?") for files in images]
    places = [(*first.parent.parts, cohort.case_of(first.name)) for first in firsts]
    names = [str(entry.get("case", name)) for (_, entry), name in zip(entries, unique_names(places), strict=True)]
    twice = repeated(names)
    if twice:
        raise InputError(f"'{path}' has two cases called {twice}; give each entry a unique \"case\".")
    complete, left_out = [], []
    for (part, entry), name, files in zip(entries, names, images, strict=True):
        fault = _fault(path, entry, files, cohort)
        ordered = None if fault else _in_order(files, cohort, modalities, stored)
        if ordered is None:
            unknown = f'the modality of its files is unknown: name them as in {cohort.name}, or add "modality"'
            left_out.append(LeftOut(name, f"{fault or unknown}; correct '{path}'"))
            continue
        label = str(path.parent / entry["label"]) if entry.get("label") else None
        paths = tuple(str(path.parent / file) for file in ordered)
        present = () if cohort.channels else tuple(modalities)
        complete.append(Case(name, cohort.patient_of(name), paths, present, label, entry.get("fold", part)))
    return Cases(tuple(sorted(complete, key=lambda case: case.name)), left_out=tuple(left_out))


def _fault(path: Path, entry: Mapping[str, Any], files: Sequence[str], cohort: Cohort) -> str | None:
    """Why an entry cannot be a case of the cohort, or None."""
    listed = [*files, entry["label"]] if entry.get("label") else files
    missing = [str(path.parent / file) for file in listed if not (path.parent / file).exists()]
    if missing:
        return f"'{missing[0]}' does not exist"
    if not files or (len(files) == 1) != bool(cohort.channels) and len(cohort.modalities) > 1:
        wanted = "one 4-D file" if cohort.channels else "a list with one file per modality"
        return f"its image is {entry.get('image')}, but {cohort.name} needs {wanted}"
    return None


def _in_order(
    files: Sequence[str], cohort: Cohort, modalities: Sequence[str], stored: Sequence[str]
) -> list[str] | None:
    """The files of the modalities, in their order.

    The modality of a file is taken from its name, or else from the datalist's `modality`; None if both fail.
    """
    if cohort.channels:
        return list(files)
    by_name: dict[str, str] = {}
    for file in files:
        stem = Path(file).name.removesuffix(".gz").removesuffix(".nii")
        ending = cohort.ending_of(stem)
        by_name |= {ending[0]: file} if ending else {}
    known = by_name if len(by_name) == len(files) else dict(zip(stored, files, strict=False))
    return [known[name] for name in modalities] if set(modalities) <= known.keys() else None
