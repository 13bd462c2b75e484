"""Find cases of DICOM series: one folder per case, which has one folder with one series per modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tumour.cases.case import Case, Cases, LeftOut, unique_names


def series_cases(root: Path, series: Mapping[str, Sequence[str]], modalities: Sequence[str]) -> Cases:
    """Find the cases in a folder that have a series of at least one modality.

    Args:
        root: the folder; cases may be in subfolders.
        series: allowed folder names by modality, in lower case.
        modalities: the modalities to use, in order.
    """
    found: dict[Path, dict[str, str]] = {}
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        name = next((name for name, allowed in series.items() if folder.name.lower() in allowed), None)
        if name in modalities and any(_is_dicom(path) for path in folder.iterdir()):
            found.setdefault(folder.parent, {})[str(name)] = str(folder)
    names = unique_names(folder.relative_to(root.parent).parts for folder in found)
    complete: list[Case] = []
    incomplete: list[Case] = []
    left_out: list[LeftOut] = []
    for name, folders in zip(names, found.values(), strict=True):
        present = tuple(modality for modality in modalities if modality in folders)
        case = Case(name, name, tuple(folders[modality] for modality in present), present)
        missing = [modality for modality in modalities if modality not in present]
        (incomplete if missing else complete).append(case)
        if missing:
            left_out.append(LeftOut(name, f"it has no series of {', '.join(missing)}; add it or use fewer modalities"))
    return Cases(tuple(complete), tuple(incomplete), tuple(left_out))


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"
