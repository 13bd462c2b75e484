"""What is wrong or doubtful with labels: of one case, and of a data set whose labels contradict its name.

All cohorts list their classes in one order: background, necrotic, oedema, enhancing and, if there is one, cavity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from tumour.cohort import Cohort
from tumour.scans.grid import Mask, Scan

OUTSIDE = (0.5, 0.01)  # share of a tumour outside the brain: above the first the label is another patient's
MISNAMED = 0.25  # share of labels with values of another cohort, from which the whole data set is in doubt
NAMED = {  # how a dataset.json calls the classes: the first that fits; up to four letters are a complete name
    "cavity": ("cavity", "resection", "rc"),
    "oedema": ("edema", "oedema", "flair", "snfh", "ed"),
    "necrotic": ("necro", "non-enh", "nonenh", "netc", "ncr", "net"),
    "enhancing": ("enhanc", "et"),
}
Cohorts = Mapping[str, Cohort]


def look(finding: Any, label: Scan, brains: Mapping[str, Mask], cohort: Cohort, cohorts: Cohorts) -> None:
    """Add to a finding what is wrong with its label, and statistics of its classes."""
    if label.data.ndim != 3:
        finding.faults.append(f"'{label.path}' has the shape {label.data.shape}, not three axes; export one label map")
        return
    values = np.unique(label.data)
    strange = [value for value in values.tolist() if min(abs(value - known) for known in cohort.label_values) > 0.01]
    if strange:
        finding.facts["foreign"] = strange[:9]
        finding.faults.append(
            f"'{label.path}' holds {_listed(strange[:9])}; {_advice(values.tolist(), cohort, cohorts)}"
        )
        return
    classes = cohort.to_classes(label.data, label.path)
    finding.facts |= statistics(classes, cohort.classes, float(np.prod(label.spacing)) / 1000)
    tumour = classes > 0
    count = np.count_nonzero(tumour)
    if not count:
        finding.notes.append(f"'{label.path}' contains no tumour; check that this is intended")
    elif brains and all(brain.shape == tumour.shape for brain in brains.values()):
        outside = 1 - np.count_nonzero(tumour & np.logical_or.reduce(list(brains.values()))) / count
        sentence = f"{outside:.0%} of the tumour in '{label.path}' lies outside the brain"
        if outside > OUTSIDE[0]:
            finding.faults.append(f"{sentence}; find the label of this patient")
        elif outside > OUTSIDE[1]:
            finding.notes.append(f"{sentence}; look at it")


def statistics(classes: np.ndarray, names: Sequence[str], ml: float) -> dict[str, Any]:
    """ml of each class, the number of lesions (26-connected), and each class's share of the tumour's outer border.

    Args:
        classes: label map of positions in `names`, background first.
        names: class names.
        ml: volume of a voxel.
    """
    tumour = classes > 0
    box = next(iter(ndimage.find_objects(tumour.view(np.uint8))), (slice(0),))
    inside, data = tumour[box], classes[box]
    border = data[inside & ~ndimage.binary_erosion(inside)]  # outside the box there is no tumour
    counts, outer = (np.bincount(part.ravel(), minlength=len(names)) for part in (data, border))
    return {
        "ml": {name: round(int(counts[n]) * ml, 3) for n, name in enumerate(names) if n},
        "lesions": int(ndimage.label(inside, np.ones((3, 3, 3)))[1]),
        "border": {name: round(int(outer[n]) / max(border.size, 1), 3) for n, name in enumerate(names) if n},
    }


def contradiction(findings: Sequence[Any], dataset_dir: str, cohort: Cohort, cohorts: Cohorts) -> str | None:
    """Why the labels of a data set cannot be those of its cohort, with the cohorts that they fit, or None."""
    own = list(cohort.label_values)
    stated = stated_values(dataset_dir)
    if stated and any(own[cohort.classes.index(n)] != value for n, value in stated[1].items() if n in cohort.classes):
        wanted = [stated[1].get(name, own[position]) for position, name in enumerate(cohort.classes)]
        says = ", ".join(f"{value} is {name}" for name, value in stated[1].items())
        return f"'{stated[0]}' says that {says}, unlike {cohort.name}; {_advice(wanted, cohort, cohorts, True)}."
    labelled = [finding for finding in findings if {"foreign", "ml"} & finding.facts.keys()]
    foreign = sorted({value for finding in labelled for value in finding.facts.get("foreign", [])})
    misnamed = [finding for finding in labelled if "foreign" in finding.facts]
    if len(misnamed) >= max(MISNAMED * len(labelled), 1) and _fitting(foreign, cohort, cohorts, ordered=False):
        where = f"{len(misnamed):,} of {len(labelled):,} labels hold {_listed(foreign[:9])} (as {misnamed[0].case})"
        return f"{where}; {_advice(foreign, cohort, cohorts)}."
    full = [f.facts for f in labelled if all(f.facts.get("ml", {}).get(name) for name in cohort.classes[1:4])]
    outer = [facts["border"]["necrotic"] > facts["border"]["oedema"] for facts in full]
    if len(outer) >= 5 and np.mean(outer) >= 0.9:
        wanted = [own[0], own[2], own[1], *own[3:]]
        what = f"what {cohort.name} calls necrotic lies around what it calls oedema"
        return f"In {sum(outer):,} of {len(outer):,} labels {what}; {_advice(wanted, cohort, cohorts, True)}."
    return None


def stated_values(dataset_dir: str) -> tuple[str, dict[str, int]] | None:
    """The dataset.json of a folder, or a datalist, and the value that it states for each class, if it does."""
    root = Path(dataset_dir)
    places = [root] if dataset_dir.endswith(".json") else [root / "dataset.json", *sorted(root.glob("*/dataset.json"))]
    for path in places:
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


def _fitting(values: Sequence[float], cohort: Cohort, cohorts: Cohorts, ordered: bool) -> list[str]:
    """Other cohorts with these values, or with just this order of them; those with the same file names first."""

    def fits(other: Cohort) -> bool:
        own = list(other.label_values)
        return other.name != cohort.name and (own == list(values) if ordered else set(values) <= set(own))

    fitting = [other for other in cohorts.values() if fits(other)]
    return [other.name for other in sorted(fitting, key=lambda other: _layout(other) != _layout(cohort))]


def _advice(values: Sequence[float], cohort: Cohort, cohorts: Cohorts, ordered: bool = False) -> str:
    """What to give instead of a cohort whose labels hold these values, or store the classes in this order."""
    fitting = _fitting(values, cohort, cohorts, ordered)
    has = f"{cohort.name} has {list(cohort.label_values)}"
    alike = [name for name in fitting if _layout(cohorts[name]) == _layout(cohort)]
    if alike:
        return f"{has}, labels as these have {' and '.join(alike)}: give one as --cohort"
    if not (fitting or ordered):
        return f"{has}: restore the label"
    wanted = list(values) if ordered else list(cohorts[fitting[0]].label_values)
    like = f", labels as these have {' and '.join(fitting)}" if fitting else ""
    return f"{has}{like}: give --cohorts::{cohort.name}::label_values '{wanted}'"


def _layout(cohort: Cohort) -> tuple:
    return cohort.suffixes, cohort.image_folders, cohort.channels


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
