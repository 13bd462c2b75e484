"""A cohort: how a data set names its files, and what the values in them mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tumour.errors import InputError, OptionError

ENDINGS = (".nii.gz", ".nii")
LABEL = "label"
KEYS = {"files", "folders", "channels", "label_values", "patient", "challenge", "classes", "regions"}


def stem_of(file_name: str) -> str:
    """The name of a file without the ending of NIfTI files, which may be in upper case."""
    return next((file_name[: -len(each)] for each in ENDINGS if file_name.lower().endswith(each)), file_name)


def is_nifti(file_name: str) -> bool:
    """Whether a file is called like a NIfTI file."""
    return file_name.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class Cohort:
    """The naming and meaning of the files of a data set: one entry of `cohorts` in bundles/common/cohorts.yaml.

    Args:
        name: name of the data set.
        classes: class names, background first.
        regions: class names of each region, by the region's name.
        label_values: the value that label files use for each of `classes`.
        patient: regular expression that matches a case id; its first group is the patient.
        challenge: the scoring rules, one of `tumour.scores.challenges.CHALLENGES`.
        suffixes: the ends of file names after the case id, by modality and for `label`; empty for 4-D files.
        image_folders, label_folder: names of the folders of a data set with one 4-D file per case.
        channels: modalities of a 4-D file in order; empty if each modality has a separate file.
    """

    name: str
    classes: tuple[str, ...]
    regions: Mapping[str, tuple[str, ...]]
    label_values: tuple[int, ...]
    patient: str = "(.+)"
    challenge: str = "legacy"
    suffixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image_folders: tuple[str, ...] = ()
    label_folder: str = ""
    channels: tuple[str, ...] = ()

    @classmethod
    def from_config(cls, name: str, entry: Mapping[str, Any], usual: Mapping[str, Any]) -> Self:
        """Create a cohort from an entry of the config.

        Args:
            name: name of the data set.
            entry: its entry.
            usual: classes and regions that apply if the entry has none.

        Raises:
            InputError: a key is unknown or missing, or the values do not match the classes.
        """
        entry = {**usual, **entry}
        unknown, missing = entry.keys() - KEYS, {"label_values", "patient", "challenge"} - entry.keys()
        if unknown or missing:
            problem = f"has no {', '.join(sorted(missing))}" if missing else f"has the unknown key {min(unknown)}"
            raise InputError(f"cohort {name} {problem}; the keys of a cohort are {', '.join(sorted(KEYS))}.")
        if ("files" in entry) == ("folders" in entry):
            raise InputError(f"cohort {name} must have either files, or folders and channels.")
        folders = entry.get("folders", {})
        cohort = cls(
            name=name,
            classes=tuple(entry["classes"]),
            regions={region: tuple(names) for region, names in entry["regions"].items()},
            label_values=tuple(entry["label_values"]),
            patient=entry["patient"],
            challenge=entry["challenge"],
            suffixes={kind: _tuple(suffixes) for kind, suffixes in entry.get("files", {}).items()},
            image_folders=_tuple(folders.get("image", ())),
            label_folder=folders.get(LABEL, ""),
            channels=tuple(entry.get("channels", ())),
        )
        if len(cohort.label_values) != len(cohort.classes):
            raise InputError(
                f"cohort {name} has {len(cohort.label_values)} label_values for {len(cohort.classes)} classes; "
                "give one value per class, background first."
            )
        if fault := cohort.fault():
            raise InputError(f"cohort {name} {fault}.")
        return cohort

    def fault(self) -> str | None:
        """How its parts contradict each other and how to fix it, or None."""
        values, classes = self.label_values, set(self.classes)
        if not all(type(value) is int and 0 <= value < 256 for value in values) or len({*values}) < len(values):
            return f"has the label_values {list(values)}; give different whole numbers from 0 to 255"
        if len(classes) < len(self.classes):
            return f"has the classes {', '.join(self.classes)}; give each another name"
        if unknown := {member for names in self.regions.values() for member in names} - classes:
            return f"has a region with the unknown class {min(unknown)}; its classes are {', '.join(self.classes)}"
        if not self.regions or not all(self.regions.values()):
            return "has no region, or one without a class; list the classes of each region"
        if both := self.regions.keys() & classes:  # their scores would go by one name
            return f"has a region and a class called {min(both)}; rename the region"
        try:
            groups = re.compile(self.patient).groups
        except re.error as error:
            return f"has {self.patient!r} for patient, which is no regular expression ({error}); correct it"
        return None if groups else f"has {self.patient!r} for patient, without a group; write ({self.patient})"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of a complete case."""
        return self.channels or tuple(kind for kind in self.suffixes if kind != LABEL)

    def channel_indices(self, modalities: Sequence[str]) -> list[int]:
        """The position of each modality among the channels of a case that was read with these modalities.

        Raises:
            InputError: `modalities` is empty, or one of them is unknown.
        """
        if not modalities or not set(modalities) <= set(self.modalities):
            raise OptionError(f"modalities {list(modalities)} must be one or more of {list(self.modalities)}.")
        return [self.channels.index(m) for m in modalities] if self.channels else list(range(len(modalities)))

    def case_of(self, file_name: str) -> str:
        """The case id in a file name."""
        stem = stem_of(file_name)
        ending = self.ending_of(stem)
        return stem.removesuffix(ending[1]) if ending else stem

    def ending_of(self, stem: str) -> tuple[str, str] | None:
        """The kind of a file (a modality or `label`) and the suffix of its name; the longest suffix that fits."""
        kinds = ((kind, suffix) for kind, suffixes in self.suffixes.items() for suffix in suffixes)
        return max((each for each in kinds if stem.endswith(each[1])), key=lambda each: len(each[1]), default=None)

    def patient_of(self, case: str) -> str:
        """The patient in a case id."""
        match = re.fullmatch(self.patient, case)
        return match[1] if match else case

    def to_classes(self, values: NDArray, source: str) -> NDArray[np.uint8]:
        """Convert a label map from the values in its file to positions in `classes`.

        Floating-point values may differ from the values of the cohort by up to 0.01.

        Args:
            values: label map of any shape.
            source: its name in the error message.

        Raises:
            InputError: the label map has a value that the cohort does not define.
        """
        classes = np.full(values.shape, 255, np.uint8)
        for position, value in enumerate(self.label_values):
            classes[values == value if values.dtype.kind in "biu" else np.abs(values - value) <= 0.01] = position
        if 255 in classes:
            others = np.unique(values[classes == 255])[:5].tolist()
            known = list(self.label_values)
            raise InputError(f"{source} contains {others}, but {self.name} has {known}; check --cohort or the file")
        return classes

    def to_values(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert a label map from positions in `classes` to the values of the data set's label files."""
        return np.array(self.label_values, np.uint8)[classes]

    def members(self, names: Sequence[str]) -> list[int]:
        """The position in `classes` of each of these class names."""
        return [self.classes.index(name) for name in names]

    def masks(self, classes: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
        """The mask of each region in a label map of positions in `classes`; same shape."""
        return {region: np.isin(classes, self.members(names)) for region, names in self.regions.items()}


def read_cohorts(cohorts: Mapping[str, Mapping[str, Any]], usual: Mapping[str, Any]) -> dict[str, Cohort]:
    """All cohorts of a config, by name."""
    return {name: Cohort.from_config(name, entry, usual) for name, entry in cohorts.items()}


def _tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
