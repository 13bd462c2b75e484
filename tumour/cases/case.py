"""A case, the cases of a folder, and those that a run leaves out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tumour.cohort import Cohort
from tumour.errors import InputError


@dataclass(frozen=True)
class LeftOut:
    """A case that a run does without.

    Args:
        case: its id.
        why: what is wrong and how to fix it, without a full stop.
    """

    case: str
    why: str

    def __str__(self) -> str:
        return f"{self.case}: {self.why}."


@dataclass(frozen=True)
class Case:
    """The scans of one patient at one time, with their label where there is one.

    Args:
        name: its id, unique within a data set; its label map is called so.
        patient: the patient's id.
        images: a NIfTI file or a folder with a DICOM series for each of `modalities`, or one 4-D file.
        modalities: what `images` are, in order; empty for a 4-D file, which has the channels of its cohort.
        label: the label file.
        part: the part of the data, or the fold in which the case validates, where a datalist says so.
    """

    name: str
    patient: str
    images: tuple[str, ...]
    modalities: tuple[str, ...] = ()
    label: str | None = None
    part: str | int = "training"

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or {"/", "\\", "\0"} & set(self.name):
            raise InputError(f"'{self.name}' cannot be a case id, which names files; use letters, digits, - and _.")

    @property
    def files(self) -> dict[str, str]:
        """The files by modality (`image` for a 4-D one), and the label."""
        images = dict(zip(self.modalities or ("image",), self.images, strict=True))
        return images | ({"label": self.label} if self.label else {})

    def item(self, label_as: str = "label") -> dict[str, Any]:
        """The case as a dict for MONAI's transforms; `label_as` is the key of its label."""
        item: dict[str, Any] = {"case": self.name, "image": list(self.images)}
        item |= {"modalities": list(self.modalities)} if self.modalities else {}
        return item | ({label_as: self.label} if self.label else {})

    def record(self) -> dict[str, Any]:
        """The case as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Case:
        return cls(**{**record, "images": tuple(record["images"]), "modalities": tuple(record["modalities"])})


def item_of(case: Case | Mapping[str, Any]) -> dict[str, Any]:
    """A case, or what a client hands in for one (`image` and `label`, no id), as a dict for MONAI's transforms."""
    return case.item() if isinstance(case, Case) else dict(case)


def patient_of(case: Case | Mapping[str, Any], cohort: Cohort) -> str:
    """The patient of a case; of a client's item, as the name of its first file says."""
    if isinstance(case, Case):
        return case.patient
    image = case["image"]
    return cohort.patient_of(cohort.case_of(Path(image if isinstance(image, str) else image[0]).name))


@dataclass(frozen=True)
class Cases:
    """What lies in a folder or a datalist.

    Args:
        complete: cases whose modalities are all there, with or without a label, sorted by name.
        incomplete: cases that lack a modality.
        left_out: those and others that cannot be used, with the reason.
        unused: for a case, sentences on files that are not used.
        strays: NIfTI files that belong to no case.
    """

    complete: tuple[Case, ...] = ()
    incomplete: tuple[Case, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    unused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strays: tuple[str, ...] = ()

    def __add__(self, other: Cases) -> Cases:
        return Cases(
            tuple(sorted(self.complete + other.complete, key=lambda case: case.name)),
            self.incomplete + other.incomplete,
            self.left_out + other.left_out,
            {**self.unused, **other.unused},
            self.strays + other.strays,
        )

    def sentences(self) -> list[str]:
        """What a user should know, one sentence each."""
        unused = [f"{case}: {text}." for case, texts in self.unused.items() for text in texts]
        return unused + [f"left out, {left_out}" for left_out in self.left_out]


def unique_names(places: Iterable[Sequence[str]]) -> list[str]:
    """A name for each case from the parts of its path: the last, or as many of the last as make the names differ.

    `P1/2024` and `P2/2024` become `P1_2024` and `P2_2024`; a folder that is called as what it holds counts once.
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
