"""Notice cases that differ from those used for training: their grid, brain volume and intensities."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tumour.scans.grid import Mask, Scan

PERCENTILES = (5, 50, 95)
BRIGHT = 90  # percentile; of 90, 95 and 98 that with the fewest notes on cases that are no strangers (docs/quality.md)
AXES = ("left-right", "back-front", "foot-head")
# how far outside of the range of the training cases is still usual: a share of that range, and at least this
OF_RANGE, OF_VALUE, OF_INTENSITY = 0.25, 0.2, 0.25
Ranges = Mapping[str, Sequence[float]]


def z_scores(data: NDArray[Any], brain: Mask) -> NDArray[np.float32]:
    """Every second voxel of a scan (x, y, z) as a network receives it, z-scored over the brain; NaN elsewhere."""
    inside = brain[::2, ::2, ::2]
    values = data[::2, ::2, ::2][inside].astype(float)
    scores = np.full(inside.shape, np.nan, np.float32)
    scores[inside] = (values - values.mean()) / (values.std() or 1.0)
    return scores


def intensities(scores: NDArray[np.float32]) -> list[float]:
    """Percentiles of the z-scores of a scan."""
    return [round(float(p), 3) for p in np.percentile(scores[~np.isnan(scores)], PERCENTILES)]


def relations(scores: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """The mean z-score of each modality where another one is bright: fluid is bright in T2 and dark in FLAIR.

    Two modalities that were exchanged may each have usual intensities, but not a usual relation.

    Args:
        scores: `z_scores` by modality, all on one grid.
    """
    brain = ~np.logical_or.reduce([np.isnan(each) for each in scores.values()])
    values = {name: each[brain] for name, each in scores.items()}
    found = {}
    for first, bright in ((name, each >= np.percentile(each, BRIGHT)) for name, each in values.items() if each.size):
        for other in values.keys() - {first}:
            found[f"{other} where {first} is bright"] = round(float(values[other][bright].mean()), 3)
    return dict(sorted(found.items()))


def field_of_view(scan: Scan) -> list[float]:
    """The side lengths of a scan in mm, left-right first."""
    grid = scan.without_data().in_ras()
    return [round(float(edge), 1) for edge in np.array(grid.shape) * grid.spacing]


def measures(facts: Mapping[str, Any]) -> dict[str, float]:
    """The measures of a case by name, from the facts of its check."""
    found: dict[str, float] = {}
    if "field" in facts:
        found = {"voxel side, mm (smallest)": min(facts["spacing"]), "voxel side, mm (largest)": max(facts["spacing"])}
        found |= {f"field of view, mm ({name})": edge for name, edge in zip(AXES, facts["field"], strict=True)}
    if "brain_ml" in facts:
        found["brain volume, ml"] = facts["brain_ml"]
    for modality, values in facts.get("intensities", {}).items():
        found |= {f"{modality}, percentile {p}, sd": v for p, v in zip(PERCENTILES, values, strict=True)}
    found |= {f"{name}, sd": value for name, value in facts.get("relations", {}).items()}
    return {name: float(value) for name, value in found.items()}


def ranges(cases: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The lowest and highest value of each measure, recorded next to the weights that were trained on these cases.

    Args:
        cases: the facts of each.
    """
    return widest({name: (value, value) for name, value in measures(facts).items()} for facts in cases)


def widest(several: Iterable[Ranges]) -> dict[str, list[float]]:
    """The ranges of all cases that are in any of several ranges."""
    limits: dict[str, list[float]] = {}
    for name, (low, high) in (item for each in several for item in each.items()):
        lowest, highest = limits.get(name, (low, high))
        limits[name] = [min(low, lowest), max(high, highest)]
    return limits


def strange(facts: Mapping[str, Any], seen: Ranges) -> list[str]:
    """A note on the measures of a case that are outside of what was used for training; none for an ordinary case."""
    outside = []
    for name, value in measures(facts).items() if seen else ():
        if name in seen:
            low, high = seen[name]
            margin = max(OF_RANGE * (high - low), OF_INTENSITY if name.endswith("sd") else OF_VALUE * abs(low))
            if not low - margin <= value <= high + margin:
                outside.append(f"{name}, {value:g} ({low:g} to {high:g})")
    return [f"unlike the cases used for training: {'; '.join(outside)}; check its result"] if outside else []
