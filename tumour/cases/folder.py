"""Find the NIfTI files of cases in a folder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tumour.cases.case import Case, Cases, LeftOut, unique_names
from tumour.cohort import ENDINGS, LABEL, Cohort


def look_through(root: Path, cohort: Cohort, modalities: Sequence[str]) -> Cases:
    """Find the cases in a folder and its subfolders, with files named as in the cohort."""
    return _of_folders(root, cohort) if cohort.channels else _of_suffixes(root, cohort, modalities)


def nifti_files(root: Path) -> list[tuple[Path, str]]:
    """Path and name without suffix of every NIfTI file in a folder and its subfolders, without hidden files."""
    files = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            ending = next((e for e in ENDINGS if name.endswith(e)), None)
            if ending and not name.startswith("."):
                files.append((Path(folder, name), name[: -len(ending)]))
    return files


@dataclass
class _Group:
    """The files in one folder whose names start the same way: a case, or some files of one."""

    folder: Path
    stem: str
    files: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def add(self, kind: str, path: Path) -> None:
        if kind in self.files:
            self.unused.append(_duplicate(str(path), kind, self.files[kind]))
        else:
            self.files[kind] = str(path)


def _duplicate(path: str, kind: str, used: str) -> str:
    return f"'{path}' is not used, because '{used}' is also a {kind} of this case; remove one of them"


def _of_suffixes(root: Path, cohort: Cohort, modalities: Sequence[str]) -> Cases:
    """Cases with one file per modality: files in one folder whose names start the same way are a case."""
    kinds = {suffix: kind for kind, suffixes in cohort.suffixes.items() for suffix in suffixes}
    groups: dict[tuple[Path, str], _Group] = {}
    strays = []
    for path, stem in nifti_files(root):
        suffix = next((suffix for suffix in kinds if stem.endswith(suffix)), None)
        if suffix is None:
            strays.append(str(path))
            continue
        start = stem[: -len(suffix)] or path.parent.name
        groups.setdefault((path.parent, start), _Group(path.parent, start)).add(kinds[suffix], path)
    kept = _merge_copies(list(groups.values()), modalities)
    names = unique_names((*group.folder.relative_to(root.parent).parts, group.stem) for group in kept)
    complete: list[Case] = []
    incomplete: list[Case] = []
    left_out: list[LeftOut] = []
    unused: dict[str, tuple[str, ...]] = {}
    for name, group in sorted(zip(names, kept, strict=True), key=lambda pair: pair[0]):
        present = tuple(kind for kind in modalities if kind in group.files)
        missing = [f"{group.stem}{cohort.suffixes[kind][0]}.nii.gz" for kind in modalities if kind not in present]
        images = tuple(group.files[kind] for kind in present)
        if missing:
            left_out.append(LeftOut(name, f"{', '.join(missing)} is missing; add it or use fewer modalities"))
        if present:
            case = Case(name, cohort.patient_of(name), images, present, group.files.get(LABEL))
            (incomplete if missing else complete).append(case)
        if group.unused:
            unused[name] = tuple(group.unused)
    return Cases(tuple(complete), tuple(incomplete), tuple(left_out), unused, tuple(strays))


def _merge_copies(groups: list[_Group], modalities: Sequence[str]) -> list[_Group]:
    """Drop incomplete groups if another folder has a complete case with the same name; note their files there."""
    complete = {group.stem: group for group in reversed(groups) if set(modalities) <= group.files.keys()}
    kept = []
    for group in groups:
        case = complete.get(group.stem)
        if case is None or case is group or set(modalities) <= group.files.keys():
            kept.append(group)
        else:
            for kind, path in group.files.items():
                used = case.files.get(kind)
                misplaced = f"'{path}' is not in the folder of the other files of this case; move it there"
                case.unused.append(_duplicate(path, kind, used) if used else misplaced)
    return kept


def _of_folders(root: Path, cohort: Cohort) -> Cases:
    """Cases with one 4-D file each, in folders for images and labels."""
    images: dict[str, list[Path]] = defaultdict(list)
    labels: dict[str, str] = {}
    strays = []
    for path, stem in nifti_files(root):
        if path.parent.name == cohort.label_folder:
            labels[stem] = str(path)
        elif path.parent.name in cohort.image_folders:
            images[stem].append(path)
        else:
            strays.append(str(path))
    for paths in images.values():  # first the training image, which the label belongs to
        paths.sort(key=lambda path: cohort.image_folders.index(path.parent.name))
    found = [(path, stem, n) for stem, paths in images.items() for n, path in enumerate(paths)]
    names = unique_names((*path.parent.relative_to(root.parent).parts, stem) for path, stem, _ in found)
    cases = [
        Case(name, cohort.patient_of(stem), (str(path),), label=None if n else labels.get(stem))
        for name, (path, stem, n) in zip(names, found, strict=True)
    ]
    left_out = [
        LeftOut(stem, f"'{path}' has no image; add the image to {cohort.image_folders[0]}")
        for stem, path in labels.items()
        if stem not in images
    ]
    return Cases(tuple(sorted(cases, key=lambda case: case.name)), left_out=tuple(left_out), strays=tuple(strays))
