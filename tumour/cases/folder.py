"""Find the NIfTI files of cases in a folder."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tumour.cases.case import Case, Cases, LeftOut, alike, case_or_left_out, unique_names
from tumour.cohort import LABEL, Cohort, is_nifti, stem_of
from tumour.errors import printable


def look_through(root: Path, cohort: Cohort, modalities: Sequence[str]) -> Cases:
    """Find the cases in a folder and its subfolders, with files named as in the cohort."""
    hidden: list[LeftOut] = []
    files = nifti_files(root, hidden)
    found = _of_folders(root, cohort, files) if cohort.channels else _of_suffixes(root, cohort, modalities, files)
    return replace(found, left_out=(*found.left_out, *hidden))


def folders_below(root: Path, hidden: list[LeftOut] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from `root` down with the names of its files; links are followed, and no folder comes twice.

    Folders whose name begins with a dot are skipped. What cannot be looked into is added to `hidden`.
    """
    hidden = [] if hidden is None else hidden
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            found = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            hidden.append(LeftOut(folder.name, f"'{folder}' cannot be read ({error.strerror}); change its permissions"))
            continue
        entries = [entry for entry in found if printable(entry.name) == entry.name]
        for name in {printable(entry.name) for entry in found} - {entry.name for entry in entries}:
            hidden.append(LeftOut(name, f"the name of '{folder / name}' is not UTF-8; rename it"))
        inner = [entry for entry in entries if _is_folder(entry)]
        names = {entry.name for entry in inner}
        yield folder, [entry.name for entry in entries if entry.name not in names]
        for entry in entries:
            if entry.is_symlink() and not os.path.exists(entry) and not is_nifti(entry.name):
                why = f"'{entry.path}' is a link to '{os.readlink(entry)}', which does not exist; restore or remove it"
                hidden.append(LeftOut(entry.name, why))
        inner.sort(key=lambda entry: (entry.is_symlink(), entry.name))  # a folder goes by its own name
        waiting += [Path(entry) for entry in reversed(inner) if not _is_skipped(entry.name)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder without permission
        return False


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name == "lost+found"


def nifti_files(root: Path, hidden: list[LeftOut] | None = None) -> list[tuple[Path, str]]:
    """Path and name without suffix of every NIfTI file in a folder and its subfolders, without hidden files."""
    files = []
    for folder, names in folders_below(root, hidden):
        for name in names:
            stem = stem_of(name)
            if stem != name and not name.startswith("."):
                files.append((folder / name, stem))
    return files


@dataclass
class _Group:
    """The files in one folder whose names start the same way: a case, or some files of one.

    Where their names are only those of the modalities, the folder names the case: `bare`.
    """

    folder: Path
    stem: str
    bare: bool
    files: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def add(self, kind: str, path: Path) -> None:
        if kind in self.files:
            self.unused.append(not_used(str(path), kind, self.files[kind]))
        else:
            self.files[kind] = str(path)


def not_used(path: str, kind: str, used: str) -> str:
    """The message about a file, or a folder with a series, of which a case has another one."""
    return f"'{path}' is not used, because '{used}' is also a {kind} of this case; remove one of them"


def _of_suffixes(root: Path, cohort: Cohort, modalities: Sequence[str], files: Sequence[tuple[Path, str]]) -> Cases:
    """Cases with one file per modality: files in one folder whose names start the same way are a case."""
    groups: dict[tuple[Path, str], _Group] = {}
    strays = []
    for path, stem in files:
        ending = cohort.ending_of(stem)
        if ending is None:
            strays.append(str(path))
            continue
        kind, suffix = ending
        start = stem[: -len(suffix)] or path.parent.name
        bare = stem == suffix
        groups.setdefault((path.parent, start), _Group(path.parent, start, bare)).add(kind, path)
    kept = _merge_copies(list(groups.values()), modalities)
    named_by_folders = [group for group in kept if group.bare]
    kept = [*named_by_folders, *(group for group in kept if not group.bare)]
    places = alike(group.folder.relative_to(root.parent).parts for group in named_by_folders)
    places += [(*group.folder.relative_to(root.parent).parts, group.stem) for group in kept[len(places) :]]
    names = unique_names(places)
    complete: list[Case] = []
    incomplete: list[Case] = []
    left_out: list[LeftOut] = []
    unused: dict[str, tuple[str, ...]] = {}
    for name, group in sorted(zip(names, kept, strict=True), key=lambda pair: pair[0]):
        present = tuple(kind for kind in modalities if kind in group.files)
        missing = [f"{group.stem}{cohort.suffixes[kind][0]}.nii.gz" for kind in modalities if kind not in present]
        images = tuple(group.files[kind] for kind in present)
        if missing and is_nifti(group.folder.name):
            moved = "move the file in it up and give it that name"
            left_out.append(LeftOut(name, f"'{group.folder}' is a folder that is named like a file; {moved}"))
            continue
        if missing:
            left_out.append(LeftOut(name, f"{', '.join(missing)} is missing; add it or use fewer modalities"))
        if present:
            case = case_or_left_out(name, cohort.patient_of(name), images, present, group.files.get(LABEL))
            if isinstance(case, LeftOut):
                left_out.append(case)
            else:
                (incomplete if missing else complete).append(case)
        if group.unused:
            unused[name] = tuple(group.unused)
    return Cases(tuple(complete), tuple(incomplete), tuple(left_out), unused, tuple(strays))


def _merge_copies(groups: list[_Group], modalities: Sequence[str]) -> list[_Group]:
    """Drop incomplete groups if another folder has a complete case with the same name.

    Labels may have folders of their own, as in BIDS: a case without a label gets that of its name, if no other case has
    this name. All other files are noted at the case.
    """
    whole = [group for group in groups if set(modalities) <= group.files.keys()]
    complete = {group.stem: group for group in reversed(whole)}
    number = Counter(group.stem for group in whole)
    kept = []
    for group in groups:
        case = complete.get(group.stem)
        if case is None or case is group or set(modalities) <= group.files.keys():
            kept.append(group)
        else:
            for kind, path in group.files.items():
                used = case.files.get(kind)
                if kind == LABEL and not used and number[group.stem] == 1:
                    case.add(kind, Path(path))
                    continue
                misplaced = f"'{path}' is not in the folder of the other files of this case; move it there"
                case.unused.append(not_used(path, kind, used) if used else misplaced)
    return kept


def _of_folders(root: Path, cohort: Cohort, files: Sequence[tuple[Path, str]]) -> Cases:
    """Cases with one 4-D file each, in folders for images and, next to these, labels."""
    images: dict[tuple[Path, str], Path] = {}
    labels: dict[tuple[Path, str], Path] = {}
    strays, twice = [], []
    for path, stem in files:
        place = path.parent.name
        kind = labels if place == cohort.label_folder else images if place in cohort.image_folders else None
        if kind is None:
            strays.append(str(path))
        elif (used := kind.setdefault((path.parent, stem), path)) is not path:
            what = "label" if kind is labels else "4-D image"
            twice.append((path.parent, stem, not_used(str(path), what, str(used))))
    if _one_file_per_channel({stem for _, stem in images}, {stem for _, stem in labels}, len(cohort.channels)):
        return Cases(strays=tuple(str(path) for path, _ in files))
    rank = {folder: number for number, folder in enumerate(cohort.image_folders)}
    found = sorted(images, key=lambda key: rank[key[0].name])  # the label belongs to the training image
    names = unique_names((*folder.relative_to(root.parent).parts, stem) for folder, stem in found)
    cases = []
    for name, (folder, stem) in zip(names, found, strict=True):
        label = labels.pop((folder.parent / cohort.label_folder, stem), None)
        file, label_file = str(images[folder, stem]), str(label) if label else None
        cases.append(case_or_left_out(name, cohort.patient_of(stem), (file,), label=label_file))
    left_out = [case for case in cases if isinstance(case, LeftOut)] + [
        LeftOut(stem, f"'{path}' has no image; add it to '{path.parent.parent / cohort.image_folders[0]}'")
        for (_, stem), path in labels.items()
    ]
    named = dict(zip(found, names, strict=True))
    unused: dict[str, tuple[str, ...]] = {}
    for folder, stem, text in twice:
        name = named.get((folder, stem), stem)
        unused[name] = (*unused.get(name, ()), text)
    complete = tuple(sorted((case for case in cases if isinstance(case, Case)), key=lambda case: case.name))
    return Cases(complete, left_out=tuple(left_out), unused=unused, strays=tuple(strays))


def _one_file_per_channel(images: Collection[str], labels: Collection[str], channels: int) -> bool:
    """Whether the files of image folders are named as nnU-Net has them, CASE_0000 for the label CASE."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for stem in images:
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        if not match or stem in labels:
            return False
        numbers[match[1]].add(int(match[2]))
    if labels:
        return any(case in labels for case in numbers)
    return bool(numbers) and all(found == set(range(channels)) for found in numbers.values())
