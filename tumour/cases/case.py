"""Types for a case, for the cases in a folder, and for a case that a run leaves out."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from tumour.cohort import Cohort
from tumour.errors import InputError

LEFT_OUT = {"case": str, "why": str}  # what records contain of a `LeftOut` and of a `Case`
CASE = {
    "name": str,
    "patient": str,
    "images": [str],
    "modalities": [str],
    "label": (str, None),
    "part": (str, int),
}
LONGEST = 200  # bytes of a case id: a file name has at most 255, and the longest of ours add about 40
CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # kinds of characters that break a line or cannot be written


@dataclass(frozen=True)
class LeftOut:
    """A case that a run does not use.

    Args:
        case: the case id.
        why: the reason and how to fix it, without a full stop.
    """

    case: str
    why: str

    def __str__(self) -> str:
        return f"{self.case}: {self.why}."


@dataclass(frozen=True)
class Case:
    """The scans of one patient at one time point, and their label if there is one.

    Args:
        name: case id, unique within a data set; also the file name of a predicted label map.
        patient: patient id.
        images: one NIfTI file or one folder with a DICOM series per modality, or one 4-D file.
        modalities: modalities of `images`, in order; empty for a 4-D file, which has the channels of its cohort.
        label: label file.
        part: from a datalist: the part of the data, or the fold whose validation cases include this case.

    Raises:
        InputError: `name` is empty, too long, starts with a dot, or contains a slash or a control character.
    """

    name: str
    patient: str
    images: tuple[str, ...]
    modalities: tuple[str, ...] = ()
    label: str | None = None
    part: str | int = "training"

    def __post_init__(self) -> None:
        unfit = {"/", "\\"} & set(self.name) or CONTROL & set(map(unicodedata.category, self.name))
        if not self.name or self.name.startswith(".") or unfit or len(os.fsencode(self.name)) > LONGEST:
            reason = f"because case ids are used as file names; use letters, digits, - and _, at most {LONGEST}"
            raise InputError(f"{self.name!r} cannot be a case id, {reason}.")

    @property
    def files(self) -> dict[str, str]:
        """The files by modality (`image` for a 4-D file) and `label`."""
        images = dict(zip(self.modalities or ("image",), self.images, strict=True))
        return images | ({"label": self.label} if self.label else {})

    def item(self, label_as: str = "label") -> dict[str, Any]:
        """The case as a dict for MONAI's transforms; its label gets the key `label_as`."""
        item: dict[str, Any] = {"case": self.name, "image": list(self.images)}
        item |= {"modalities": list(self.modalities)} if self.modalities else {}
        return item | ({label_as: self.label} if self.label else {})

    def record(self) -> dict[str, Any]:
        """The case as a dict that can be written as JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """A case from a record of the shape `CASE`."""
        values = {name: record[name] for name in CASE}
        return cls(**{**values, "images": tuple(values["images"]), "modalities": tuple(values["modalities"])})


def case_or_left_out(name: str, *args: Any, **options: Any) -> Case | LeftOut:
    """A case, or why it is left out if its folder has a name that cannot be a case id: the other cases are used."""
    try:
        return Case(name, *args, **options)
    except InputError as error:
        return LeftOut(repr(name)[1:-1], f"{str(error).rstrip('.')}, or rename its folder and files")


def item_of(case: Case | Mapping[str, Any]) -> dict[str, Any]:
    """A case as a dict for MONAI's transforms. A client's item already is such a dict, without a case id."""
    return case.item() if isinstance(case, Case) else dict(case)


def image_files(image: str | Sequence[str]) -> list[str]:
    """The files of an image as a client or a datalist states it: one file, or one per modality."""
    return [image] if isinstance(image, str) else [str(file) for file in image]


def patient_of(case: Case | Mapping[str, Any], cohort: Cohort) -> str:
    """The patient of a case, or of a client's item according to the name of its first file."""
    if isinstance(case, Case):
        return case.patient
    return cohort.patient_of(cohort.case_of(Path(image_files(case["image"])[0]).name))


@dataclass(frozen=True)
class Cases:
    """The cases in a folder or datalist.

    Args:
        complete: cases with all modalities, with or without a label, sorted by name.
        incomplete: cases without at least one modality.
        left_out: the incomplete cases and others that cannot be used, with the reason.
        unused: messages about files that are not used, or may be those of another case, by case id.
        strays: NIfTI files that belong to no case.
        labels: label files of cases that are used without them.

    Raises:
        InputError: two cases have the same name, so that the results of one would replace those of the other.
    """

    complete: tuple[Case, ...] = ()
    incomplete: tuple[Case, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    unused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strays: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        cases = self.complete + self.incomplete
        if twice := repeated(case.name for case in cases):
            first, second = [case.images[0] for case in cases if case.name == twice][:2]
            raise InputError(f"Two cases are called {twice}: that of '{first}' and that of '{second}'; rename one.")

    def __add__(self, other: Self) -> Self:
        return type(self)(
            tuple(sorted(self.complete + other.complete, key=lambda case: case.name)),
            self.incomplete + other.incomplete,
            self.left_out + other.left_out,
            {**self.unused, **other.unused},
            self.strays + other.strays,
            self.labels + other.labels,
        )

    def folders(self) -> set[Path]:
        """The folders that hold files of the cases, with all links resolved."""
        files = {file for case in (*self.complete, *self.incomplete) for file in case.files.values()}
        return {folder.resolve() for folder in {Path(file).parent for file in files.union(self.labels)}}

    def sentences(self) -> list[str]:
        """Messages for the user about unused files and cases that are left out."""
        unused = [f"{case}: {text}." for case, texts in self.unused.items() for text in texts]
        return unused + [f"left out, {left_out}" for left_out in self.left_out]


def repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs more than once, or None."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def alike(places: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """The paths of cases that only their folders name, with as many last parts joined as make all of them unique.

    All have equally many, so that one pattern finds the patient in each: of `P1/2024`, `P2/2024` and `P2/2025` also the
    last is named after its patient.
    """
    paths = [*map(tuple, places)]
    for count in range(1, max(map(len, paths), default=0) + 1):
        names = ["_".join(path[-count:]) for path in paths]
        if len({*names}) == len(paths):
            return [(*path[:-count], name) for path, name in zip(paths, names, strict=True)]
    return paths


def unique_names(places: Iterable[Sequence[str]]) -> list[str]:
    """A name for each case from the last parts of its path: as few parts as are needed to make the names unique.

    `P1/2024` and `P2/2024` become `P1_2024` and `P2_2024`. A folder with the same name as its content counts once.

    Args:
        places: the parts of the path of each case.
    """
    paths = [[part for part, before in zip(p, ["", *p[:-1]], strict=True) if part != before] for p in map(list, places)]
    names = [path[-1] for path in paths]
    for length in range(2, max(map(len, paths), default=0) + 1):
        equal = defaultdict(list)
        for index, name in enumerate(names):
            equal[name].append(index)
        for indices in equal.values():
            if len(indices) > 1:
                for index in indices:
                    names[index] = "_".join(paths[index][-length:])
    return names
