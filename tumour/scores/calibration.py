"""Are probabilities right? Histograms of the logits of a case, the calibration error, a temperature for each region.

A histogram is all that is needed of a case: calibration, at any temperature, and volumes at any threshold follow from
it. With a reference it has two rows, the voxels outside and inside the region; without one it has one row.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from scipy.special import expit
from tumour.cohort import Cohort
from tumour.errors import require_finite
from tumour.scans.grid import bounding_box

Histogram = NDArray[np.int64]  # (1 or 2, LOGITS.size): voxels by logit
LIMIT, STEPS = 10, 200  # logits beyond ±10 count as ±10; 0, a probability of 0.5, is where two bins meet
LOGITS = (np.arange(STEPS) + 0.5) * (2 * LIMIT / STEPS) - LIMIT  # the centres of the bins
BINS = 20  # of equal width in the probability, for the calibration error
TEMPERATURES = np.geomspace(0.5, 5, 93)  # steps of 2.5%
SURE = 0.9  # a prediction is confident from this probability, or up to 1 - SURE


def histogram(probabilities: torch.Tensor, inside: torch.Tensor | None = None) -> Histogram:
    """Count the voxels of a region by logit.

    Args:
        probabilities: of the region, any shape; voxels of exactly 0 are outside the head and are not counted.
        inside: the reference of the region, bool, same shape; its voxels are always counted.
    """
    logits = torch.logit(probabilities, eps=1e-6)
    bins = ((logits + LIMIT) * (STEPS / (2 * LIMIT))).floor_().clamp_(0, STEPS - 1).int()
    left_out = probabilities == 0  # selecting the others first would take most of the time
    if inside is not None:
        bins += STEPS * inside
        left_out &= ~inside
    counts = torch.bincount(bins.flatten(), minlength=STEPS * (1 if inside is None else 2)).reshape(-1, STEPS)
    counts[0, 0] -= left_out.sum()
    return counts.cpu().numpy()


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """The entropy of each voxel in bits: 0 where a region is certain, 1 where its probability is 0.5."""
    return (torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)) / np.log(2)


class Measured(MapTransform):
    """Add what the quality of a case is judged by, as `evidence`: plain lists by name, which can be written as JSON.

    `histograms` by region; `entropy`, the sum over the voxels of the region that is least certain there, for each axial
    slice of the scan, in its order; and with a reference `disagreement` by region: for each slice, the voxels that the
    network is sure of and that the reference has otherwise.

    Args:
        keys: key of probabilities (R, *S) on the grid of the scan.
        cohort: the regions, in the order of the channels, and the values of `reference` (1, *S), if the data have it.
    """

    def __init__(self, keys: KeysCollection, cohort: Cohort, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.cohort = cohort

    def __call__(self, data: Mapping) -> dict:
        out = dict(data)
        for key in self.key_iterator(out) if "case" in out else ():
            require_finite(out[key], str(out["case"]))
            out["evidence"] = self.evidence(out[key], out)
        return out

    def evidence(self, pred: torch.Tensor, data: Mapping) -> dict[str, Any]:
        probabilities = torch.as_tensor(pred.detach()).as_subclass(torch.Tensor)
        masks = self.masks(data, probabilities.device)
        head = (probabilities > 0).any(dim=0) | (masks.any(dim=0) if masks is not None else False)
        box = bounding_box(head.cpu().numpy())  # about 37% of a BraTS volume
        probabilities, masks = probabilities[:, *box], masks[:, *box] if masks is not None else None
        axial = axial_axis(np.asarray(data["image"].meta["original_affine"]))
        others = tuple(axis for axis in range(3) if axis != axial)

        def by_slice(values: torch.Tensor) -> list[float]:
            sums = torch.zeros(head.shape[axial], dtype=torch.float64)
            sums[box[axial]] = values.sum(dim=others).cpu().double()
            return sums.round(decimals=1).tolist()

        evidence: dict[str, Any] = {
            "histograms": {
                name: histogram(p, None if masks is None else masks[n]).tolist()
                for n, (name, p) in enumerate(zip(self.cohort.regions, probabilities, strict=True))
            },
            "entropy": by_slice(entropy(0.5 - (probabilities - 0.5).abs().amin(dim=0))),
        }
        if masks is not None:
            wrong = (probabilities >= SURE) & ~masks | (probabilities <= 1 - SURE) & masks
            evidence["disagreement"] = dict(zip(self.cohort.regions, map(by_slice, wrong), strict=True))
        return evidence

    def masks(self, data: Mapping, device: torch.device) -> torch.Tensor | None:
        """The regions of the reference (R, *S), bool; None without one."""
        if "reference" not in data:
            return None
        classes = self.cohort.to_classes(np.asarray(data["reference"].cpu())[0], f"{data['case']}: its label")
        return torch.from_numpy(np.stack([*self.cohort.masks(classes).values()])).to(device)


def axial_axis(affine: NDArray) -> int:
    """The axis of a scan that comes closest to foot-head; a slice is an index of it."""
    return int(np.flatnonzero(io_orientation(affine)[:, 0] == 2)[0])


def reliability(histograms: Histogram, temperature: float = 1.0) -> NDArray[np.float64]:
    """Number of voxels, mean probability and share of the region, by bin of probability (3, BINS).

    Args:
        histograms: (..., 2, STEPS), of cases with a reference; all are taken together.
        temperature: the logits are divided by it.
    """
    outside, inside = histograms.reshape(-1, 2, STEPS).sum(axis=0).astype(float)
    probability = expit(LOGITS / temperature)
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    number, total, hits = (
        np.bincount(place, weights, minlength=BINS)
        for weights in (outside + inside, (outside + inside) * probability, inside)
    )
    return np.stack([number, total / np.maximum(number, 1), hits / np.maximum(number, 1)])


def calibration_error(table: NDArray[np.float64]) -> float:
    """The average calibration error (ACE): the mean over the bins with voxels of |mean probability - share|.

    Each bin has the same weight, so that the many voxels far from a tumour do not hide the few at its border
    (Barfoot et al., 2024).

    Args:
        table: as returned by `reliability`.
    """
    number, probability, share = table
    return float(np.abs(probability - share)[number > 0].mean())


def fit_temperature(histograms: Histogram) -> float:
    """The temperature with the lowest calibration error; histograms (..., 2, STEPS).

    The highest likelihood (Guo et al., 2017) is not used: nearly all voxels are far from the tumour, where the network
    is sure and right, so it leaves the error at the border as it was.
    """
    return float(min(TEMPERATURES, key=lambda each: calibration_error(reliability(histograms, each))))
