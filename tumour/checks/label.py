"""Check labels: the label of one case, and whether the labels of a data set match its cohort.

All cohorts list their classes in the same order: background, necrotic, oedema, enhancing and, if they have it, a fifth.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from tumour.cases.datalist import descriptions
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.records import read_json
from tumour.scans.grid import Mask, Scan, pieces_of

OUTSIDE = (0.5, 0.01)  # share of the tumour outside the brain: above the first a fault, above the second a note
MISNAMED = 0.25  # if this share of the labels has values of another cohort, the given cohort is probably wrong
# Names of the classes in dataset.json files; the first match counts. Up to four letters must match the complete name.
NAMED = {
    "cavity": ("cavity", "resection", "rc"),
    "cyst": ("cystic", "cyst", "cc"),
    "oedema": ("edema", "oedema", "flair", "snfh", "ed"),
    "necrotic": ("necro", "non-enh", "nonenh", "netc", "ncr", "net"),
    "enhancing": ("enhanc", "et"),
}
Cohorts = Mapping[str, Cohort]


def look(finding: Any, label: Scan, brains: Mapping[str, Mask], cohort: Cohort, cohorts: Cohorts) -> None:
    """Add the faults and notes of a label and the statistics of its classes to a finding."""
    if label.data.ndim != 3:
        finding.faults.append(f"'{label.path}' has the shape {label.data.shape}, not three axes; export one label map")
        return
    values = np.unique(label.data)
    unknown = [value for value in values.tolist() if min(abs(value - known) for known in cohort.label_values) > 0.01]
    if unknown:
        finding.facts["foreign"] = unknown[:9]
        advice = _advice(values.tolist(), cohort, cohorts)
        finding.faults.append(f"'{label.path}' contains {_listed(unknown[:9])}; {advice}")
        return
    classes = cohort.to_classes(label.data, label.path)
    finding.facts |= statistics(classes, cohort.classes, float(np.prod(label.spacing)) / 1000)
    tumour = classes > 0
    count = np.count_nonzero(tumour)
    if not count:
        finding.notes.append(f"'{label.path}' contains no tumour; check that this is intended")
    elif brains and all(brain.shape == tumour.shape for brain in brains.values()):
        outside = 1 - np.count_nonzero(tumour & np.logical_or.reduce(list(brains.values()))) / count
        sentence = f"{outside:.0%} of the tumour in '{label.path}' is outside the brain"
        if outside > OUTSIDE[0]:
            finding.faults.append(f"{sentence}; check that the label is from this patient")
        elif outside > OUTSIDE[1]:
            finding.notes.append(f"{sentence}; check the label")


def statistics(classes: np.ndarray, names: Sequence[str], ml: float) -> dict[str, Any]:
    """Volumes, lesions and outer border of a label map.

    Args:
        classes: label map (x, y, z) of positions in `names`.
        names: class names, background first.
        ml: volume of a voxel, ml.

    Returns:
        ml: the volume of each class; lesions: the number of 26-connected components of the tumour; border: the share
        of each class in the outermost voxels of the tumour.
    """
    tumour = classes > 0
    box = next(iter(ndimage.find_objects(tumour.view(np.uint8))), (slice(0),))
    inside, data = tumour[box], classes[box]
    border = data[inside & ~ndimage.binary_erosion(inside)]  # outside the box there is no tumour
    counts, outer = (np.bincount(part.ravel(), minlength=len(names)) for part in (data, border))
    return {
        "ml": {name: round(int(counts[n]) * ml, 3) for n, name in enumerate(names) if n},
        "lesions": pieces_of(inside)[1],
        "border": {name: round(int(outer[n]) / max(border.size, 1), 3) for n, name in enumerate(names) if n},
    }


def contradiction(findings: Sequence[Any], dataset_dir: str, cohort: Cohort, cohorts: Cohorts) -> str | None:
    """Why the labels of a data set contradict its cohort, with the cohorts that they match, or None.

    Three signs are checked: a dataset.json that gives the classes other values, many labels with values of another
    cohort, and necrotic and oedema swapped, because oedema surrounds necrotic tissue.
    """
    expected = list(cohort.label_values)
    stated = stated_values(dataset_dir)
    values = dict(zip(cohort.classes, expected, strict=True))
    if stated and any(values.get(name, value) != value for name, value in stated[1].items()):
        wanted = [stated[1].get(name, value) for name, value in values.items()]
        meaning = ", ".join(f"{value} is {name}" for name, value in stated[1].items())
        advice = _advice(wanted, cohort, cohorts, ordered=True)
        return f"'{stated[0]}' states that {meaning}, which contradicts {cohort.name}; {advice}."
    labelled = [finding for finding in findings if {"foreign", "ml"} & finding.facts.keys()]
    foreign = sorted({value for finding in labelled for value in finding.facts.get("foreign", [])})
    misnamed = [finding for finding in labelled if "foreign" in finding.facts]
    if len(misnamed) >= max(MISNAMED * len(labelled), 1) and _fitting(foreign, cohort, cohorts, ordered=False):
        count = f"{len(misnamed):,} of {len(labelled):,} labels"
        return f"{count} contain {_listed(foreign[:9])} (e.g. {misnamed[0].case}); {_advice(foreign, cohort, cohorts)}."
    with_all = [f.facts for f in labelled if all(f.facts.get("ml", {}).get(name) for name in cohort.classes[1:4])]
    swapped = [facts["border"]["necrotic"] > facts["border"]["oedema"] for facts in with_all]
    if len(swapped) >= 5 and np.mean(swapped) >= 0.9:
        wanted = [expected[0], expected[2], expected[1], *expected[3:]]
        advice = _advice(wanted, cohort, cohorts, ordered=True)
        around = f"the class necrotic of {cohort.name} surrounds its class oedema"
        return f"In {sum(swapped):,} of {len(swapped):,} labels {around}; {advice}."
    return None


def stated_values(dataset_dir: str) -> tuple[str, dict[str, int]] | None:
    """The path of a datalist or dataset.json and the value that it states for each class, or None if there is none."""
    for path in descriptions(dataset_dir):
        try:
            labels = read_json(path, {"labels": {str: object}})["labels"]
            pairs = [(name, key) if str(key).isdigit() else (key, name) for key, name in labels.items()]
            stated = {_class_named(str(name).lower()): int(value) for name, value in pairs}
        except (InputError, ValueError, TypeError):
            continue  # missing, or in another format (nnU-Net lists the classes of regions)
        stated.pop("", None)
        if stated:
            return str(path), stated
    return None


def _class_named(text: str) -> str:
    """The class that a name in lower case stands for, or an empty string."""
    return next((n for n, parts in NAMED.items() if any(p == text or len(p) > 4 and p in text for p in parts)), "")


def _fitting(values: Sequence[float], cohort: Cohort, cohorts: Cohorts, ordered: bool) -> list[str]:
    """Other cohorts whose labels have these values, those with the same file names first.

    Args:
        values: label values.
        cohort: the given cohort.
        cohorts: all cohorts by name.
        ordered: whether `values` are the values of the classes in order, or any values of some label maps.
    """

    def matches(other: Cohort) -> bool:
        known = list(other.label_values)
        return other.name != cohort.name and (known == list(values) if ordered else set(values) <= set(known))

    matching = [other for other in cohorts.values() if matches(other)]
    return [other.name for other in sorted(matching, key=lambda other: _layout(other) != _layout(cohort))]


def _advice(values: Sequence[float], cohort: Cohort, cohorts: Cohorts, ordered: bool = False) -> str:
    """How to fix a cohort whose label values differ from those of the files; arguments as in `_fitting`."""
    matching = _fitting(values, cohort, cohorts, ordered)
    has = f"{cohort.name} has {list(cohort.label_values)}"
    same_layout = [name for name in matching if _layout(cohorts[name]) == _layout(cohort)]
    if same_layout:
        return f"{has}, but the values match {', '.join(same_layout)}: give one of these as --cohort"
    if not (matching or ordered):
        return f"{has}: restore the label"
    wanted = list(values) if ordered else list(cohorts[matching[0]].label_values)
    also = f", but the values match {', '.join(matching)}" if matching else ""
    return f"{has}{also}: give --cohorts::{cohort.name}::label_values '{wanted}'"


def _layout(cohort: Cohort) -> tuple:
    """How the files of a cohort are named."""
    return cohort.suffixes, cohort.image_folders, cohort.channels


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
