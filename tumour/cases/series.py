"""Look through a folder for DICOM series: a folder per case, in it a folder per modality with one series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tumour.cases.case import Case, Cases, LeftOut, unique_names


def series_cases(root: Path, series: Mapping[str, Sequence[str]], modalities: Sequence[str]) -> Cases:
    """The cases below a folder that have a series for at least one modality.

    Args:
        root: folder of the cases.
        series: names that the folder of each modality may have, in lower case.
        modalities: those wanted, in order.
    """
    found: dict[Path, dict[str, str]] = {}
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        name = next((name for name, given in series.items() if folder.name.lower() in given), None)
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
            left_out.append(LeftOut(name, f"it has no series of {', '.join(missing)}; add it"))
    return Cases(tuple(complete), tuple(incomplete), tuple(left_out))


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"
