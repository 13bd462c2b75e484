"""A cohort: what the files of a data set mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tumour.errors import InputError

ENDINGS = (".nii.gz", ".nii")
LABEL = "label"
KEYS = {"files", "folders", "channels", "label_values", "patient", "challenge", "classes", "regions"}


@dataclass(frozen=True)
class Cohort:
    """What the files of a data set mean: one entry of `cohorts` in bundles/common/cohorts.yaml.

    Args:
        name: name of the data set.
        classes: class names, background first.
        regions: class names of each region, by the region's name.
        label_values: the value that a label file holds for each of `classes`.
        patient: regular expression whose first group is the patient in a case id.
        challenge: its scoring rules, one of `tumour.scores.challenges.CHALLENGES`.
        suffixes: what follows the case id in a file name, by modality and for `label`; empty for 4-D files.
        image_folders, label_folder: folders of a data set that has one 4-D file per case.
        channels: modalities of a 4-D file in their order; empty if each modality has a file of its own.
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
    def from_config(cls, name: str, entry: Mapping[str, Any], usual: Mapping[str, Any]) -> Cohort:
        """The cohort that an entry of the config describes; `usual` holds the classes and regions of most data sets.

        Raises:
            InputError: a key is unknown or missing, or the values do not fit the classes.
        """
        entry = {**usual, **entry}
        unknown, missing = entry.keys() - KEYS, {"label_values", "patient", "challenge"} - entry.keys()
        if unknown or missing:
            what = f"has no {', '.join(sorted(missing))}" if missing else f"has the unknown key {min(unknown)}"
            raise InputError(f"cohort {name} {what}; its keys are {', '.join(sorted(KEYS))}.")
        if ("files" in entry) == ("folders" in entry):
            raise InputError(f"cohort {name} must have either files or folders (with channels).")
        folders = entry.get("folders", {})
        cohort = cls(
            name=name,
            classes=tuple(entry["classes"]),
            regions={region: tuple(names) for region, names in entry["regions"].items()},
            label_values=tuple(entry["label_values"]),
            patient=entry["patient"],
            challenge=entry["challenge"],
            suffixes={kind: _tuple(given) for kind, given in entry.get("files", {}).items()},
            image_folders=_tuple(folders.get("image", ())),
            label_folder=folders.get(LABEL, ""),
            channels=tuple(entry.get("channels", ())),
        )
        if len(cohort.label_values) != len(cohort.classes):
            raise InputError(
                f"cohort {name} has {len(cohort.label_values)} label_values for {len(cohort.classes)} classes."
            )
        strange = {member for names in cohort.regions.values() for member in names} - set(cohort.classes)
        if strange:
            raise InputError(f"cohort {name} has a region of {min(strange)}, which is none of its classes.")
        return cohort

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that a complete case has."""
        return self.channels or tuple(kind for kind in self.suffixes if kind != LABEL)

    def channel_indices(self, modalities: Sequence[str]) -> list[int]:
        """The position of each modality among the channels of a case as it is read.

        Raises:
            InputError: none is given, or one is unknown.
        """
        if not modalities or not set(modalities) <= set(self.modalities):
            raise InputError(f"modalities {list(modalities)} must be one or more of {list(self.modalities)}.")
        return [self.channels.index(m) for m in modalities] if self.channels else list(range(len(modalities)))

    def case_of(self, file_name: str) -> str:
        """The case id in a file name."""
        stem = next((file_name.removesuffix(ending) for ending in ENDINGS if file_name.endswith(ending)), file_name)
        return next((stem.removesuffix(s) for given in self.suffixes.values() for s in given if stem.endswith(s)), stem)

    def patient_of(self, case: str) -> str:
        """The patient in a case id."""
        match = re.fullmatch(self.patient, case)
        return match[1] if match else case

    def to_classes(self, values: NDArray, source: str) -> NDArray[np.uint8]:
        """A label map as stored -> positions in `classes`; a value within 0.01 of a stored one is that value.

        Raises:
            InputError: there are other values; `source` says where.
        """
        classes = np.full(values.shape, 255, np.uint8)
        for position, value in enumerate(self.label_values):
            classes[values == value if values.dtype.kind in "biu" else np.abs(values - value) <= 0.01] = position
        if 255 in classes:
            others = np.unique(values[classes == 255])[:5].tolist()
            raise InputError(f"{source} holds {others}, not only {list(self.label_values)}; check --cohort or the file")
        return classes

    def to_values(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Positions in `classes` -> a label map as the data set stores it."""
        return np.array(self.label_values, np.uint8)[classes]

    def members(self, names: Sequence[str]) -> list[int]:
        """The positions in `classes` of the classes of a region."""
        return [self.classes.index(name) for name in names]

    def masks(self, classes: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
        """The voxels of each region in a label map of positions in `classes`."""
        return {region: np.isin(classes, self.members(names)) for region, names in self.regions.items()}


def read_cohorts(cohorts: Mapping[str, Mapping[str, Any]], usual: Mapping[str, Any]) -> dict[str, Cohort]:
    """All cohorts of a config, by name."""
    return {name: Cohort.from_config(name, entry, usual) for name, entry in cohorts.items()}


def _tuple(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
