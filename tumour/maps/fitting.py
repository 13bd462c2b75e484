"""Find the after-treatment with the best scores on the validation cases, and write it to a file with its gain."""

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
from tumour.cohort import Cohort
from tumour.errors import InputError, require_finite
from tumour.files import atomic_write, save_json
from tumour.maps.aftertreatment import treatment_steps, voxel_volume
from tumour.maps.regions import RegionsToClassesd
from tumour.scans.grid import bounding_box, pieces_of

THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.9)  # of equally good values the first is used: the smallest change
SMALLEST_PIECE = (0, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)  # mm³
SMALLEST_REGION = (0, 50, 100, 250, 500, 1000, 2500, 5000)  # mm³
logger = logging.getLogger("bundle")


@dataclass
class FittingCase:
    """The data of a case for fitting, cropped to the box that contains the reference and all possible predictions."""

    probabilities: torch.Tensor  # (R, *S), float16
    reference: NDArray[np.bool_]  # (R, *S)
    voxel: float  # volume of a voxel, mm³


def dice(overlap: NDArray, predicted: NDArray, present: float) -> NDArray:
    """Dice of one case for many predictions, from volumes in the same unit; 1 if both masks are empty."""
    total = predicted + present
    return np.where(total > 0, 2 * overlap / np.maximum(total, 1e-9), 1.0)


def best_of_region(cases: Sequence[FittingCase], index: int) -> dict[str, float]:
    """The threshold, smallest piece and smallest region with the highest mean Dice of one region alone."""
    minimums = np.array(SMALLEST_REGION)
    means: dict[tuple[float, float, float], float] = {}
    for threshold in THRESHOLDS:
        scores = []  # (cases, smallest pieces, smallest regions)
        for case in cases:
            present = float(case.reference[index].sum()) * case.voxel
            pieces = pieces_of(case.probabilities[index].float().numpy() >= threshold)[0]
            sizes = np.bincount(pieces.ravel())[1:] * case.voxel
            overlaps = np.bincount(pieces[case.reference[index]], minlength=len(sizes) + 1)[1:] * case.voxel
            kept = sizes >= np.array(SMALLEST_PIECE)[:, None]  # (smallest pieces, pieces of the case)
            predicted, overlap = ((kept * volumes).sum(axis=1)[:, None] for volumes in (sizes, overlaps))
            large = predicted >= minimums  # (smallest pieces, smallest regions)
            scores.append(dice(overlap * large, predicted * large, present))
        mean = np.mean(scores, axis=0)
        means |= {
            (threshold, piece, region): float(mean[i, j])
            for (i, piece), (j, region) in product(enumerate(SMALLEST_PIECE), enumerate(SMALLEST_REGION))
        }
    best = max(means, key=lambda settings: round(means[settings], 6))
    return dict(zip(("threshold", "smallest_piece", "smallest_region"), best, strict=True))


class FitAfterTreatment:
    """Handler that fits the after-treatment to `pred`, probabilities (R, *S) on the grid of `reference` (1, *S).

    The best settings are searched for each region alone. They are kept if they increase the mean Dice of all regions,
    computed from label maps that are made as in inference. Cropped cases are kept in memory, a few MB each.

    Args:
        path: JSON file to write, with `threshold`, `smallest_piece` and `smallest_region` by region, and `fitted`.
        cohort: the label values and the regions.
        keep: file to which the cropped cases are saved too, for fits to the cases of several networks.
    """

    def __init__(self, path: str, cohort: Cohort, keep: str | None = None) -> None:
        self.path, self.cohort, self.regions = Path(path), cohort, dict(cohort.regions)
        self.kept_in = keep
        self.to_classes = RegionsToClassesd("pred", cohort)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.COMPLETED, self.fit)

    def start(self, engine: Engine) -> None:
        self.cases: list[FittingCase] = []
        if self.path.exists() and '"fitted"' not in self.path.read_text(encoding="utf-8", errors="replace"):
            raise InputError(f"'{self.path}' is no after-treatment and would be replaced; give another --fitted.")

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
            self.cases.append(FittingCase(probabilities[where].half(), reference[where].copy(), voxel))

    def masks(self, classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """The masks of the regions, (R, *S), of a label map (*S) of positions in the classes."""
        return np.stack(list(self.cohort.masks(classes).values()))

    def mean_dice(self, treatment: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The mean Dice of each region in label maps that are made with this after-treatment."""
        total = dict.fromkeys(self.regions, 0.0)
        for case in self.cases:
            affine = torch.diag(torch.tensor([case.voxel, 1, 1, 1], dtype=torch.float64))
            pred = MetaTensor(case.probabilities.float(), affine=affine)
            classes = self.to_classes(Compose(treatment_steps("pred", self.regions, treatment))({"pred": pred}))["pred"]
            regions = self.masks(classes[0].numpy())
            for name, guess, truth in zip(self.regions, regions, case.reference, strict=True):
                score = dice((guess & truth).sum(), guess.sum(), float(truth.sum()))
                total[name] += float(score) / len(self.cases)
        return total

    def fit(self, engine: Engine | None = None) -> None:
        if not self.cases:
            raise InputError("No case can be used for fitting; the messages above give the reasons.")
        if self.kept_in:
            with atomic_write(Path(self.kept_in)) as part, open(part, "wb") as file:
                torch.save([(c.probabilities, torch.from_numpy(c.reference), c.voxel) for c in self.cases], file)
        treatment: dict[str, dict[str, float]] = {"threshold": {}, "smallest_piece": {}, "smallest_region": {}}
        before = after = self.mean_dice(treatment)
        names = list(self.regions)
        for name in sorted(names, key=lambda name: len(self.regions[name])):  # the innermost region first
            best = best_of_region(self.cases, names.index(name))
            candidate = {kind: {**values, name: best[kind]} for kind, values in treatment.items()}
            scores = self.mean_dice(candidate)
            if sum(scores.values()) > sum(after.values()) + 1e-6:
                treatment, after = candidate, scores
        gain = {name: {"dice_before": before[name], "dice_after": after[name]} for name in self.regions}
        save_json({**treatment, "fitted": {"cases": len(self.cases), **gain}}, self.path)
        rows = [
            f"  {name}: Dice {before[name]:.4f} -> {after[name]:.4f}"
            + "".join(f", {kind} {values[name]}" for kind, values in treatment.items() if name in values)
            for name in self.regions
        ]
        logger.info("\n".join([f"fitted on {len(self.cases)} validation cases:", *rows]))
        logger.info(f"used where it is next to the weights, or by --after_treatment '%{self.path}'")
