"""Read the cases of a Decathlon datalist.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tumour.cases.case import Case, Cases, LeftOut, unique_names
from tumour.cohort import Cohort
from tumour.errors import InputError

PARTS = ("training", "validation", "testing", "test")  # the last two mean the same


def read_datalist(path: Path, cohort: Cohort, modalities: Sequence[str]) -> Cases:
    """The cases that a datalist names; paths in it start at its folder.

    Raises:
        InputError: it is no datalist, or two cases have one id.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        entries = [
            (part, entry if isinstance(entry, dict) else {"image": entry})
            for part in PARTS
            for entry in listed.get(part, [])
        ]
        stored = list(listed.get("modality", {}).values())
        images = [_paths(entry.get("image") or []) for _, entry in entries]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise InputError(f"'{path}' is not a datalist ({kind}); write one with tools.datalist.") from error
    firsts = [Path(files[0] if files else "?") for files in images]
    places = [(*first.parent.parts, cohort.case_of(first.name)) for first in firsts]
    names = [str(entry.get("case", name)) for (_, entry), name in zip(entries, unique_names(places), strict=True)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"'{path}' names two cases {twice}; give each a \"case\" of its own.")
    complete, left_out = [], []
    for (part, entry), name, files in zip(entries, names, images, strict=True):
        fault = _fault(path, entry, files, cohort)
        ordered = None if fault else _in_order(files, cohort, modalities, stored)
        if ordered is None:
            unknown = 'its files cannot be told apart: name them as the cohort does, or list "modality"'
            left_out.append(LeftOut(name, f"{fault or unknown}; correct '{path}'"))
            continue
        label = str(path.parent / entry["label"]) if entry.get("label") else None
        given = tuple(str(path.parent / file) for file in ordered)
        present = () if cohort.channels else tuple(modalities)
        complete.append(Case(name, cohort.patient_of(name), given, present, label, entry.get("fold", part)))
    return Cases(tuple(sorted(complete, key=lambda case: case.name)), left_out=tuple(left_out))


def _paths(image: str | Sequence[str]) -> list[str]:
    return [image] if isinstance(image, str) else [str(file) for file in image]


def _fault(path: Path, entry: Mapping[str, Any], files: Sequence[str], cohort: Cohort) -> str | None:
    """What keeps an entry from being a case of the cohort."""
    wanted = [*files, entry["label"]] if entry.get("label") else files
    absent = [str(path.parent / file) for file in wanted if not (path.parent / file).exists()]
    if absent:
        return f"'{absent[0]}' is not there"
    if not files or (len(files) == 1) != bool(cohort.channels) and len(cohort.modalities) > 1:
        return f"its image is {entry.get('image')}, unlike the files of {cohort.name}"
    return None


def _in_order(
    files: Sequence[str], cohort: Cohort, modalities: Sequence[str], stored: Sequence[str]
) -> list[str] | None:
    """The files of the modalities asked for: by the files' names, else by the list's `modality`; else None."""
    if cohort.channels:
        return list(files)
    by_name: dict[str, str] = {}
    for file in files:
        stem = Path(file).name.removesuffix(".gz").removesuffix(".nii")
        by_name |= {kind: file for kind, given in cohort.suffixes.items() for s in given if stem.endswith(s)}
    known = by_name if len(by_name) == len(files) else dict(zip(stored, files, strict=False))
    return [known[name] for name in modalities] if set(modalities) <= known.keys() else None
