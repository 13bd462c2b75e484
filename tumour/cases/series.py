"""Find cases of DICOM series: one folder per case, which has one folder with one series per modality."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from tumour.cases.case import Case, Cases, LeftOut, alike, case_or_left_out, unique_names
from tumour.cases.folder import folders_below, not_used
from tumour.cohort import is_nifti

BETWEEN = {"dicom", "dicoms", "dcm", "files", "image", "images", "img", "resources", "scans"}  # they name no series


def series_cases(
    root: Path, series: Mapping[str, Sequence[str]], modalities: Sequence[str], known: Collection[Path] = ()
) -> Cases:
    """The cases below a folder that have DICOM series.

    Args:
        root: folder of the cases.
        series: words that the name of a series' folder has, by modality; the name with most words decides.
        modalities: those wanted, in order.
        known: folders of cases that need no DICOM.
    """
    named: dict[Path, dict[str, list[tuple[bool, Path]]]] = defaultdict(lambda: defaultdict(list))
    for folder in dicom_folders(root):
        place = named_folder(folder, root)
        modality, exact = modality_named(place.name, series) if place != root else ("", False)
        home = named_folder(place.parent, root) if place != root else root
        if not {home, home.parent} & (set(known) - {root}) and home not in known:
            named[home][modality].append((exact, folder))
    names = unique_names(alike(home.relative_to(root.parent).parts for home in named))
    complete: list[Case] = []
    incomplete: list[Case] = []
    left_out: list[LeftOut] = []
    unused: dict[str, tuple[str, ...]] = {}
    for name, found in zip(names, named.values(), strict=True):
        best = {modality: [f for e, f in given if e] or [f for _, f in given] for modality, given in found.items()}
        present = tuple(modality for modality in modalities if modality in best)
        missing = [modality for modality in modalities if modality not in present]
        twice = next((modality for modality in present if len(best[modality]) > 1), None)
        unclear = [folder for modality, given in best.items() if modality not in series for folder in given]
        if twice:
            both = " and ".join(f"'{folder}'" for folder in best[twice][:2])
            left_out.append(LeftOut(name, f"{both} are both named as {twice}; rename or remove one"))
            continue
        if missing:
            left_out.append(LeftOut(name, _lacks(unclear, missing, series)))
        others = [(modality, f) for modality in present for _, f in found[modality] if f != best[modality][0]]
        if others:
            unused[name] = tuple(not_used(str(f), modality, str(best[modality][0])) for modality, f in others)
        if present:
            case = case_or_left_out(name, name, tuple(str(best[modality][0]) for modality in present), present)
            if isinstance(case, LeftOut):
                left_out.append(case)
            else:
                (incomplete if missing else complete).append(case)
    return Cases(tuple(complete), tuple(incomplete), tuple(left_out), unused)


def dicom_folders(root: Path) -> Iterator[Path]:
    """The folders from `root` down that hold DICOM files."""
    for folder, names in folders_below(root):
        if any(is_dicom(folder / name) for name in names if not is_nifti(name)):
            yield folder


def is_dicom(path: Path) -> bool:
    if not path.is_file():  # to open a named pipe would take forever
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def named_folder(folder: Path, root: Path) -> Path:
    """The first folder from `folder` up that is not called DICOM or the like."""
    while folder != root and folder.name.lower() in BETWEEN:
        folder = folder.parent
    return folder


def words_of(name: str) -> frozenset[str]:
    """The words of a folder's name; T1w is T1."""
    found = re.findall("[a-z0-9]+", name.lower().replace("*", " star "))
    return frozenset(re.sub(r"^(t[12])wi?$", r"\1", word) for word in found)


def modality_named(name: str, series: Mapping[str, Sequence[str]]) -> tuple[str, bool]:
    """The modality that a folder's name says, or "", and whether it says nothing else."""
    words = words_of(name)
    most = {
        modality: max((len(words_of(given)) for given in names if words_of(given) <= words), default=0)
        for modality, names in series.items()
    }
    best = [modality for modality, count in most.items() if count and count == max(most.values())]
    if len(best) != 1 or best == ["other"]:
        return "", False
    return best[0], max(most.values()) == len(words)


def _lacks(unclear: Sequence[Path], missing: Sequence[str], series: Mapping[str, Sequence[str]]) -> str:
    """What a case without some modalities says; `unclear` are its folders whose names say no modality."""
    what = f"it has no series of {', '.join(missing)}"
    if not unclear:
        return f"{what}; add it or use fewer modalities"
    folders = ", ".join(f"'{folder}'" for folder in unclear[:4])
    more = f" and {len(unclear) - 4} more" if len(unclear) > 4 else ""
    known = ", ".join(f"{modality} ({', '.join(series[modality][:3])})" for modality in missing if modality in series)
    return f"{what}, but DICOM in {folders}{more}; name the folders by modality, as {known}, or add it"
