"""Time to score a case, compared with the steps of the organisers' program and with MONAI's metrics.

python -m benchmarks.score [REFERENCE PREDICTION ...]     pairs of label maps with the values 0, 1, 2, 3; default: a
synthetic patient with ten lesions, predicted two voxels off

The steps of the program are implemented here with the libraries that it uses and without its temporary files: the
components of each region and, for each lesion, a dilation and dense distance maps on the full grid. Both must give the
same scores. MONAI's metrics compute less: no lesions, no classes.
"""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import cc3d
import nibabel as nib
import numpy as np
import surface_distance
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric
from scipy import ndimage
from tumour.scores.challenges import LESION_WISE, NEIGHBOURS, case_scores

from benchmarks import results
from benchmarks.machine import interleaved, seconds_text
from benchmarks.sides import ratio_of
from tools.patients.phantom import SCATTERED, make_patient

CLASSES = ["background", "necrotic", "oedema", "enhancing"]
REGIONS = {"TC": ["necrotic", "enhancing"], "WT": ["necrotic", "oedema", "enhancing"], "ET": ["enhancing"]}
np.Inf = np.inf  # type: ignore[misc] # surface-distance is older than NumPy 2
RULES = LESION_WISE["metastases2023"]


def hd95(reference: Any, prediction: Any, spacing: Any) -> float:
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
    return min(surface_distance.compute_robust_hausdorff(distances, 95), RULES.penalty)


def dice(reference: Any, prediction: Any) -> float:
    return 2 * float((reference & prediction).sum()) / float(reference.sum() + prediction.sum())


def program(reference: Any, prediction: Any, spacing: Any) -> dict[str, tuple[float, float]]:
    """Lesion-wise Dice and HD95 of each region, one lesion after the other on the full grid."""
    scores = {}
    for name, names in REGIONS.items():
        values = [CLASSES.index(each) for each in names]
        truth, guess = np.isin(reference, values), np.isin(prediction, values)
        dice(truth, guess), hd95(truth, guess, spacing)
        blobs = cc3d.connected_components(ndimage.binary_dilation(truth, NEIGHBOURS, RULES.dilations), connectivity=26)
        lesions, pieces = blobs * truth, cc3d.connected_components(guess, connectivity=26)
        pairs, taken = [], set()
        for number in range(1, lesions.max() + 1):
            lesion = lesions == number
            blob = ndimage.binary_dilation(lesion, NEIGHBOURS, RULES.dilations)
            parts = set(np.unique(pieces[blob])) - {0}
            taken |= parts
            near = np.isin(pieces, list(parts))
            if lesion.sum() * np.prod(spacing) > RULES.smallest:
                pairs.append((dice(lesion, near), hd95(lesion, near, spacing)))
            else:
                hd95(lesion, near, spacing)
        pairs += [(0.0, RULES.penalty)] * len(set(np.unique(pieces)) - {0} - taken)
        scores[name] = tuple(np.mean(pairs or [(1.0, 0.0)], axis=0).tolist())
    return scores


def ours(reference: Any, prediction: Any, spacing: Any) -> dict[str, tuple[float, float]]:
    rows, _ = case_scores(reference, prediction, spacing, CLASSES, REGIONS, RULES)
    return {row["region"]: (row["lesion_dice"], row["lesion_hd95"]) for row in rows if row["kind"] == "region"}


def monai(reference: Any, prediction: Any, spacing: Any) -> None:
    members = [[CLASSES.index(name) for name in names] for names in REGIONS.values()]
    pair = [
        torch.from_numpy(np.stack([np.isin(label, values) for values in members]))[None].float()
        for label in (prediction, reference)
    ]
    thresholds = [1.0] * len(REGIONS)
    DiceMetric()(*pair)
    HausdorffDistanceMetric(percentile=95)(*pair, spacing=list(spacing))
    SurfaceDiceMetric(thresholds, include_background=True)(*pair, spacing=list(spacing))


def pairs_of(paths: list[str]) -> Iterator[tuple[str, Any, Any, tuple[float, ...]]]:
    """Name, reference, prediction and spacing of each pair."""
    if not paths:
        _, label = make_patient(seed=0, index=SCATTERED, shape=(160, 160, 160))
        yield "synthetic, 10 lesions, 160³", label, np.roll(label, 2, axis=0), (1.0, 1.0, 1.0)
    for reference, prediction in zip(paths[::2], paths[1::2], strict=True):
        images: list[Any] = [nib.load(path) for path in (reference, prediction)]  # type: ignore[attr-defined]
        truth, guess = (np.asarray(image.dataobj).round().astype(np.uint8) for image in images)
        name = reference.split("/")[-1].split(".")[0].removesuffix("-seg")
        yield name, truth, guess, tuple(map(float, images[0].header.get_zooms()[:3]))


def main(paths: list[str], rounds: int = 5) -> None:
    torch.set_num_threads(1)
    rows = []
    for name, *case in pairs_of(paths):
        mine, theirs = ours(*case), program(*case)
        assert all(np.allclose(mine[name], theirs[name], atol=1e-6) for name in REGIONS), (mine, theirs)
        sides = {side.__name__: partial(side, *case) for side in (ours, program, monai)}
        seconds = interleaved(sides, rounds)
        rows.append({
            "case": name,
            "ours, s": seconds_text(seconds["ours"]),
            "the program's steps, s": seconds_text(seconds["program"]),
            "ratio to ours": ratio_of(seconds["program"], seconds["ours"]),
            "MONAI's metrics, s": seconds_text(seconds["monai"]),
            "ratio to ours, MONAI": ratio_of(seconds["monai"], seconds["ours"]),
        })  # fmt: skip
    about = (
        f"Rules of metastases2023, one thread, {rounds} rounds; our lesion scores agree with the steps of the "
        "organisers' program to 1e-6. Ours also computes the three classes and NSD."
    )
    packages = ["numpy", "scipy", "monai", "surface-distance-based-measures", "connected-components-3d"]
    real = bool(paths)
    results.keep("score-real" if real else "score", f"Scoring a case{', real' * real}", about, rows, packages)


if __name__ == "__main__":
    main(sys.argv[1:])
