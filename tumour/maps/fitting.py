"""Find the after-treatment that scores best on the cases that selected the model, and write it down with its gain."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from scipy import ndimage
from tumour.cohort import Cohort
from tumour.errors import InputError
from tumour.files import save_json
from tumour.maps.aftertreatment import require_finite, steps, voxel_volume
from tumour.maps.regions import RegionsToClassesd
from tumour.scans.grid import bounding_box

THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.9)  # of equals the first is taken, which changes least
SMALLEST_PIECE = (0, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)  # mm³
SMALLEST_REGION = (0, 50, 100, 250, 500, 1000, 2500, 5000)  # mm³
logger = logging.getLogger("bundle")


@dataclass
class Kept:
    """What fitting needs of a case, within the box that holds all that could be predicted."""

    probabilities: torch.Tensor  # (R, *S), float16
    reference: NDArray[np.bool_]  # (R, *S)
    voxel: float  # mm³


def dice(overlap: NDArray, predicted: NDArray, present: float) -> NDArray:
    """Dice of one case for many predictions; nothing to find and nothing found is 1 (all in the same unit)."""
    total = predicted + present
    return np.where(total > 0, 2 * overlap / np.maximum(total, 1e-9), 1.0)


def best_of_region(cases: Sequence[Kept], index: int) -> dict[str, float]:
    """The threshold, piece and whole that give one region by itself the highest mean Dice."""
    wholes = np.array(SMALLEST_REGION)
    means: dict[tuple[float, float, float], float] = {}
    for threshold in THRESHOLDS:
        scores = []  # cases, pieces, wholes
        for case in cases:
            present = float(case.reference[index].sum()) * case.voxel
            pieces = ndimage.label(case.probabilities[index].float().numpy() >= threshold, np.ones((3, 3, 3)))[0]
            sizes = np.bincount(pieces.ravel())[1:] * case.voxel
            overlaps = np.bincount(pieces[case.reference[index]], minlength=len(sizes) + 1)[1:] * case.voxel
            kept = sizes >= np.array(SMALLEST_PIECE)[:, None]  # (pieces tried, pieces there)
            predicted, overlap = ((kept * each).sum(axis=1)[:, None] for each in (sizes, overlaps))
            stays = predicted >= wholes
            scores.append(dice(overlap * stays, predicted * stays, present))
        table = np.mean(scores, axis=0)
        means |= {
            (threshold, piece, least): float(table[i, j])
            for (i, piece), (j, least) in product(enumerate(SMALLEST_PIECE), enumerate(SMALLEST_REGION))
        }
    best = max(means, key=lambda tried: round(means[tried], 6))
    return dict(zip(("threshold", "smallest_piece", "smallest_region"), best, strict=True))


class FitAfterTreatment:
    """Handler that fits the after-treatment to `pred`, probabilities (R, *S) on the grid of `reference` (1, *S).

    Each region is fitted by itself; what it found is kept if the mean Dice of all regions, of label maps made as
    segmenting makes them, rises by it. Cases are kept as cut-outs in float16, some MB each.

    Args:
        path: JSON file to write: `threshold`, `smallest_piece`, `smallest_region` by region, and `fitted`.
        cohort: what the values of `reference` mean, and the regions.
    """

    def __init__(self, path: str, cohort: Cohort) -> None:
        self.path, self.cohort, self.regions = Path(path), cohort, dict(cohort.regions)
        self.to_classes = RegionsToClassesd("pred", cohort)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.fit)

    def start(self, engine: Engine) -> None:
        self.cases: list[Kept] = []

    def keep(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case, pred = item["case"], output["pred"]
            require_finite(pred, case)
            classes = self.cohort.to_classes(np.asarray(item["reference"].cpu())[0], f"{case}: its label")
            reference = self.masks(classes)
            probabilities = pred.as_tensor() if isinstance(pred, MetaTensor) else pred
            probabilities = probabilities.cpu()
            box = bounding_box(np.logical_or.reduce([*(probabilities.numpy() >= min(THRESHOLDS)), *reference]))
            where = (slice(None), *box)
            voxel = voxel_volume(item["reference"])
            self.cases.append(Kept(probabilities[where].half(), reference[where].copy(), voxel))

    def masks(self, classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """The regions (R, *S) of a label map (*S) of positions in the classes."""
        return np.stack(list(self.cohort.masks(classes).values()))

    def mean_dice(self, treatment: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The mean Dice of each region, of label maps after a treatment."""
        total = dict.fromkeys(self.regions, 0.0)
        for case in self.cases:
            affine = torch.diag(torch.tensor([case.voxel, 1, 1, 1], dtype=torch.float64))
            pred = MetaTensor(case.probabilities.float(), affine=affine)
            classes = self.to_classes(Compose(steps("pred", self.regions, treatment))({"pred": pred}))["pred"]
            regions = self.masks(classes[0].numpy())
            for name, guess, truth in zip(self.regions, regions, case.reference, strict=True):
                overlap, both = (guess & truth).sum(), guess.sum()
                total[name] += float(dice(overlap, both, float(truth.sum()))) / len(self.cases)
        return total

    def fit(self, engine: Engine) -> None:
        if not self.cases:
            raise InputError("No case is left to fit on; the lines above say why.")
        treatment: dict[str, dict[str, float]] = {"threshold": {}, "smallest_piece": {}, "smallest_region": {}}
        before = now = self.mean_dice(treatment)
        for index in sorted(range(len(self.regions)), key=lambda i: len(list(self.regions.values())[i])):  # inner first
            name, found = list(self.regions)[index], best_of_region(self.cases, index)
            tried = {kind: {**values, name: found[kind]} for kind, values in treatment.items()}
            then = self.mean_dice(tried)
            if sum(then.values()) > sum(now.values()) + 1e-6:
                treatment, now = tried, then
        told = {name: {"dice_before": before[name], "dice_after": now[name]} for name in self.regions}
        content = {**treatment, "fitted": {"cases": len(self.cases), **told}}
        save_json(content, self.path)
        rows = [
            f"  {name}: Dice {before[name]:.4f} -> {now[name]:.4f}"
            + "".join(f", {kind} {values[name]}" for kind, values in treatment.items() if name in values)
            for name in self.regions
        ]
        logger.info("\n".join([f"fitted on {len(self.cases)} validation cases:", *rows]))
        logger.info(f"use it by --after_treatment '%{self.path}'")
