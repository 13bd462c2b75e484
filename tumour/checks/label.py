"""What is wrong or doubtful with labels: of one case, and of a data set whose labels contradict its name.

All conventions list their classes in one order: background, necrotic, oedema, enhancing and, if there is one, cavity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tumour.scans.nifti import Scan

OUTSIDE = (
    0.5,
    0.01,
)  # share of a tumour outside the brain: more than the first is another patient's, the second doubtful
MISNAMED = 0.25  # of the labels with values of another convention: it is the data set then, not the case
NAMED = {  # how a dataset.json calls the classes: the first that fits; up to four letters are a whole name
    "cavity": ("cavity", "resection", "rc"),
    "oedema": ("edema", "oedema", "flair", "snfh", "ed"),
    "necrotic": ("necro", "non-enh", "nonenh", "netc", "ncr", "net"),
    "enhancing": ("enhanc", "et"),
}
Cohorts = Mapping[str, Mapping[str, Any]]


def look(
    finding: Any,
    label: Scan,
    brains: Mapping[str, NDArray[np.bool_]],
    cohort: str,
    cohorts: Cohorts,
    classes: Sequence[str],
) -> None:
    """Add to a finding what is wrong with its label, and statistics of its regions."""
    known = cohorts[cohort]["label_values"]
    if label.data.ndim != 3:
        finding.faults.append(f"'{label.path}' has the shape {label.data.shape}, not three axes; export one label map")
        return
    values = np.unique(label.data).tolist()
    if not set(values) <= set(known):
        finding.facts["foreign"] = sorted(set(values) - set(known))[:9]
        finding.faults.append(
            f"'{label.path}' holds {_listed(finding.facts['foreign'])}; {_advice(values, cohort, cohorts)}"
        )
        return
    finding.facts |= statistics(label, dict(zip(classes, known, strict=True)))
    tumour = label.data != known[0]
    count = np.count_nonzero(tumour)
    if not count:
        finding.notes.append(f"'{label.path}' marks no tumour; see that it is meant so")
    elif brains and all(brain.shape == tumour.shape for brain in brains.values()):
        outside = 1 - np.count_nonzero(tumour & np.logical_or.reduce(list(brains.values()))) / count
        told = f"{outside:.0%} of the tumour in '{label.path}' lies outside the brain"
        if outside > OUTSIDE[0]:
            finding.faults.append(f"{told}; find the label of this patient")
        elif outside > OUTSIDE[1]:
            finding.notes.append(f"{told}; look at it")


def statistics(label: Scan, value_of: Mapping[str, int]) -> dict[str, Any]:
    """ml of each class, the number of lesions (26-connected), and each class's share of the tumour's outer border."""
    background, *names = value_of
    tumour = label.data != value_of[background]
    box = next(iter(ndimage.find_objects(tumour.view(np.uint8))), (slice(0),))
    inside, data = tumour[box], label.data[box]
    border = data[inside & ~ndimage.binary_erosion(inside)]  # what lies outside the box is no tumour
    ml = float(np.prod(label.spacing)) / 1000
    return {
        "ml": {name: round(np.count_nonzero(data == value_of[name]) * ml, 3) for name in names},
        "lesions": int(ndimage.label(inside, np.ones((3, 3, 3)))[1]),
        "border": {name: round(np.count_nonzero(border == value_of[name]) / max(border.size, 1), 3) for name in names},
    }


def contradiction(
    findings: Sequence[Any], dataset_dir: str, cohort: str, cohorts: Cohorts, classes: Sequence[str]
) -> str | None:
    """Why the labels of a data set cannot be those of its cohort, with the cohort that they fit, or None."""
    own = list(cohorts[cohort]["label_values"])
    stated = stated_values(dataset_dir)
    if stated and any(value != own[classes.index(name)] for name, value in stated[1].items() if name in classes):
        wanted = [stated[1].get(name, own[position]) for position, name in enumerate(classes)]
        told = ", ".join(f"{value} is {name}" for name, value in stated[1].items())
        return f"'{stated[0]}' says that {told}, unlike {cohort}; {_advice(wanted, cohort, cohorts, ordered=True)}."
    labelled = [finding for finding in findings if {"foreign", "ml"} & finding.facts.keys()]
    foreign = sorted({value for finding in labelled for value in finding.facts.get("foreign", [])})
    misnamed = [finding for finding in labelled if "foreign" in finding.facts]
    if len(misnamed) >= max(MISNAMED * len(labelled), 1) and _fitting(foreign, cohort, cohorts, ordered=False):
        where = f"{len(misnamed):,} of {len(labelled):,} labels hold {_listed(foreign[:9])} (as {misnamed[0].case})"
        return f"{where}; {_advice(foreign, cohort, cohorts)}."
    full = [
        finding.facts for finding in labelled if all(finding.facts.get("ml", {}).get(name) for name in classes[1:4])
    ]
    outer = [facts["border"]["necrotic"] > facts["border"]["oedema"] for facts in full]
    if len(outer) >= 5 and np.mean(outer) >= 0.9:
        wanted = [own[0], own[2], own[1], *own[3:]]
        return (
            f"In {sum(outer):,} of {len(outer):,} labels what {cohort} calls necrotic lies around what it calls oedema"
            f"; {_advice(wanted, cohort, cohorts, ordered=True)}."
        )
    return None


def stated_values(dataset_dir: str) -> tuple[str, dict[str, int]] | None:
    """The dataset.json of a folder, or a datalist, and what it says each class is stored as, if it does."""
    root = Path(dataset_dir)
    for path in (
        [root] if dataset_dir.endswith(".json") else [root / "dataset.json", *sorted(root.glob("*/dataset.json"))]
    ):
        try:
            labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
            pairs = [(name, key) if str(key).isdigit() else (key, name) for key, name in labels.items()]
            stated = {_class_named(str(name).lower()): int(value) for name, value in pairs}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue  # none, or of another form (nnU-Net's regions are lists)
        stated.pop("", None)
        if stated:
            return str(path), stated
    return None


def _class_named(text: str) -> str:
    return next((n for n, parts in NAMED.items() if any(p == text or len(p) > 4 and p in text for p in parts)), "")


def _fitting(values: Sequence[float], cohort: str, cohorts: Cohorts, ordered: bool) -> list[str]:
    """Other cohorts with these values (or that store their classes in just this order), the likeliest first."""
    own = cohorts[cohort]
    fitting = [
        name
        for name, other in cohorts.items()
        if (list(other["label_values"]) == list(values) if ordered else set(values) <= set(other["label_values"]))
        and name != cohort
    ]

    def kinship(name: str) -> tuple[bool, int, int]:
        other = cohorts[name]
        alike = sum(a == b for a, b in zip(other["label_values"], own["label_values"], strict=False))
        return _layout(other) == _layout(own), alike, len(commonprefix([other["challenge"], own["challenge"]]))

    return sorted(fitting, key=kinship, reverse=True)


def _advice(values: Sequence[float], cohort: str, cohorts: Cohorts, ordered: bool = False) -> str:
    """What to name instead of a cohort whose labels hold these values, or store the classes in this order."""
    own, fitting = cohorts[cohort], _fitting(values, cohort, cohorts, ordered)
    has = f"{cohort} has {list(own['label_values'])}"
    wanted = list(values) if ordered or not fitting else list(cohorts[fitting[0]]["label_values"])
    keep = f"--cohorts::{cohort}::label_values '{wanted}'"
    if fitting:
        named = f"{fitting[0]} stores its labels so, {has}: name --cohort {fitting[0]}"
        return named if _layout(cohorts[fitting[0]]) == _layout(own) else f"{named}, or for files named as these {keep}"
    return f"{has}: give {keep}" if ordered else f"{has}: restore the label"


def _layout(convention: Mapping[str, Any]) -> tuple:
    return tuple(convention.get(key) for key in ("files", "folders", "channels"))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
