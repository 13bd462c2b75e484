"""Score a case as a challenge does: each region as one mask, and each lesion of a region.

Rules and constants are those of the organisers' programs of 2023 to 2025 (github.com/rachitsaluja/BraTS-2023-Metrics
and BraTS-2024-Metrics); those of 2026 are in `tumour.scores.matching`. The scores agree with the programs to 1e-6.
The programs of 2024 and 2025 drop small predicted pieces before they score a region as one mask; here that score always
includes everything that was predicted.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# panoptica matches lesions one to one or by overlap; until 2024 the challenges match many to many after a dilation.
from scipy import ndimage
from tumour.cohort import Cohort
from tumour.errors import one_of
from tumour.scans.grid import Mask, bounding_box, pieces_of
from tumour.scores import matching
from tumour.scores.lesions import LESION, Match, Pieces, lesion_rows, moved, outcomes, rows_by_name
from tumour.scores.matching import Matching
from tumour.scores.metrics import PERFECT, Row, region_scores

Joiner = tuple[Pieces, Pieces]  # the pieces of one class in the reference and in the prediction
FAR = 6  # voxels; more than the dilations of any rules
NEIGHBOURS = ndimage.generate_binary_structure(3, 2)  # a voxel and its 18 neighbours across faces and edges


@dataclass(frozen=True)
class Rules:
    """How a challenge scores.

    Args:
        penalty: HD95 in mm of a missed or invented lesion or region; 0 means the diagonal of the case's grid in voxels.
        smallest: reference lesions of at most this volume (mm³) are not counted; None: lesions are not scored.
        dilations: number of dilations of the reference. Lesions whose dilated blobs touch are one lesion, and every
            predicted piece within the blob of a lesion belongs to that lesion.
        prune: merge predicted pieces in the same way, then drop those of at most `smallest` voxels.
        joined_by: classes, applied one after the other: all lesions that touch the same piece of the class are joined
            into one lesion.
        exceptions: different values of these arguments for some regions or classes.
    """

    penalty: float
    smallest: float | None = None
    dilations: int = 0
    prune: bool = False
    joined_by: tuple[str, ...] = ()
    exceptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def for_region(self, region: str, shape: Sequence[int]) -> Self:
        """The rules for one region or class of a case whose grid has this shape."""
        rules = replace(self, exceptions={}, **self.exceptions.get(region, {}))
        return replace(rules, penalty=rules.penalty or math.hypot(*shape))


_CAVITY = {"dilations": 5, "joined_by": ("enhancing", "necrotic")}
_GLIOMA: dict[str, dict[str, Any]] = {
    "ET": {"smallest": 10, "joined_by": ("necrotic", "cavity")},
    "enhancing": {"smallest": 10, "joined_by": ("necrotic", "cavity")},
    "necrotic": {"dilations": 5, "joined_by": ("enhancing", "cavity")},
    "oedema": {"joined_by": ("enhancing", "cavity", "necrotic")},
    "RC": _CAVITY,
    "cavity": _CAVITY,
}
_METASTASES: dict[str, dict[str, Any]] = dict.fromkeys(("ET", "enhancing"), {"joined_by": ("necrotic",)})
LESION_WISE = {  # penalty (mm), smallest (mm³), dilations
    "legacy": Rules(math.hypot(240, 240, 155)),  # 373.13, the diagonal of the BraTS grid
    "glioma2023": Rules(374, 50, 3),
    "africa2023": Rules(374, 50, 3),
    "pediatric2023": Rules(374, 50, 3),
    "meningioma2023": Rules(374, 50, 1),
    "metastases2023": Rules(374, 2, 1),
    "glioma2024": Rules(337, 20, 3, prune=True, exceptions=_GLIOMA),
    "africa2024": Rules(374, 50, 3, prune=True, exceptions=_METASTASES),
    "pediatric2024": Rules(374, 10, 5, prune=True),
    "metastases2024": Rules(0, 2, 1, prune=True, exceptions=_METASTASES),
}
# these tasks were scored by the same programs in 2025 (github.com/Sage-Bionetworks-Challenges/brats-infra, 3c04557)
LESION_WISE |= {f"{task}2025": LESION_WISE[f"{task}2024"] for task in ("glioma", "africa", "pediatric")}
LESION_WISE["meningioma2025"] = LESION_WISE["meningioma2023"]
ONE_TO_ONE = {  # penalty (mm)
    "goat2026": Matching(373),
    "metastases2026": Matching(373, large=275, regions={"lesion": ("necrotic", "enhancing", "cavity")}),
}
CHALLENGES: Mapping[str, Rules | Matching] = {**LESION_WISE, **ONE_TO_ONE}


def case_scores(
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    spacing: Sequence[float],
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    rules: Rules,
) -> tuple[list[Row], list[Row]]:
    """Score every region and every class of a case, and every lesion in them.

    Args:
        reference, prediction: label maps (x, y, z) of positions in `classes`.
        spacing: edge lengths of a voxel, mm.
        classes: class names, background first.
        regions: class names of each region, by the region's name.
        rules: those of the challenge.

    Returns:
        One row per region and class (`kind` says which), and one row per lesion of each.
    """
    shape, voxels = reference.shape, reference.size
    box = bounding_box((reference > 0) | (prediction > 0), margin=FAR)  # the rest of the grid is empty
    labels = [np.ascontiguousarray(label[box]) for label in (reference, prediction)]

    def masks(values: Iterable[int]) -> list[Mask]:
        return [np.logical_or.reduce([label == value for value in values]) for label in labels]

    @cache
    def joiner(name: str) -> Joiner:
        class_rules = rules.for_region(name, shape)
        truth, guess = masks([classes.index(name)])
        smallest = class_rules.smallest or 0
        return merged_pieces(truth, class_rules.dilations), merged_pieces(guess, class_rules.dilations, smallest)

    @cache  # the region ET and the class enhancing are the same mask
    def scores(values: frozenset[int], region_rules: Rules) -> tuple[Row, list[Row]]:
        truth, guess = masks(values)
        row = region_scores(truth, guess, spacing, region_rules.penalty, voxels)
        if region_rules.smallest is None:
            return row, []
        joiners = [joiner(name) for name in region_rules.joined_by if name in classes]
        means, lesions = lesion_scores(truth, guess, spacing, region_rules, joiners)
        return row | means, moved(lesions, box)

    def score(name: str, names: Sequence[str]) -> tuple[Row, list[Row]]:
        return scores(frozenset(map(classes.index, names)), rules.for_region(name, shape))

    return rows_by_name(classes, regions, score)


def lesion_scores(
    reference: Mask, prediction: Mask, spacing: Sequence[float], rules: Rules, joiners: Sequence[Joiner] = ()
) -> tuple[Row, list[Row]]:
    """Score one region lesion by lesion.

    Args:
        reference, prediction: the region (x, y, z) on the grid of the case.
        spacing: edge lengths of a voxel, mm.
        rules: those that `Rules.for_region` gives for this region.
        joiners: the numbered pieces of each class in `rules.joined_by`, on the same grid.

    Returns:
        Means over found, missed and invented lesions, with the number of each; and one row per lesion: `outcome`
        (found, missed, invented, or small, which is not counted), centre in voxels, volumes in ml, scores.
    """
    box = bounding_box(reference | prediction, margin=max(rules.dilations, 1))
    reference, prediction = reference[box], prediction[box]
    blobs, smallest = _numbered(reference, rules.dilations), rules.smallest or 0
    # as in the program, `smallest` is a number of voxels for predicted pieces but mm³ for reference lesions
    pieces = merged_pieces(prediction, rules.dilations, smallest) if rules.prune else _numbered(prediction, 0)
    for true_joiner, predicted_joiner in joiners:
        blobs = _joined(blobs * reference, true_joiner[box])[blobs]
        pieces = _joined(pieces, predicted_joiner[box])[pieces]
    scored = lesion_rows(
        _matches(blobs, pieces),
        blobs * reference,
        pieces,
        box,
        lambda lesion, predicted: region_scores(lesion, predicted, spacing, rules.penalty),
    )
    rows = [{name: row[name] for name in (*LESION, *PERFECT)} for row in scored]
    for row in rows:
        # mm³, without the rounding errors of float32 spacings
        if row["outcome"] != "invented" and round(row["reference_ml"] * 1000, 3) <= smallest:
            row["outcome"] = "small"
    return _lesion_means(rows), rows


def _matches(blobs: Pieces, pieces: Pieces) -> list[Match]:
    """One match per lesion, with every piece that overlaps its blob, then one per piece that overlaps no blob."""
    matches = []
    for number, box in enumerate(ndimage.find_objects(blobs), 1):
        if box:  # None for a number that was joined to another
            inside = np.bincount(pieces[box][blobs[box] == number])
            matches.append(Match([number], [piece for piece in np.flatnonzero(inside).tolist() if piece]))
    matched = {piece for match in matches for piece in match.pieces}
    predicted = [piece for piece, box in enumerate(ndimage.find_objects(pieces), 1) if box]
    return matches + [Match([], [piece]) for piece in predicted if piece not in matched]


def _lesion_means(rows: Sequence[Row]) -> Row:
    """The mean scores of the lesions that count, and the number of each outcome; no lesion at all is perfect."""
    counted = [row for row in rows if row["outcome"] != "small"] or [PERFECT]
    means = {f"lesion_{name}": float(np.mean([row[name] for row in counted])) for name in PERFECT}
    return means | outcomes(rows)


def merged_pieces(mask: Mask, dilations: int, smallest: float = 0) -> Pieces:
    """Number the pieces of a mask (x, y, z): pieces whose dilated blobs touch are one piece.

    Pieces of at most `smallest` voxels become background; the others keep their numbers.
    """
    pieces = np.zeros(mask.shape, np.int32)
    box = bounding_box(mask, margin=dilations)
    pieces[box] = _numbered(mask[box], dilations) * mask[box]
    if smallest:
        sizes = np.bincount(pieces[box].ravel())
        pieces[box][sizes[pieces[box]] <= smallest] = 0
    return pieces


def _numbered(mask: Mask, dilations: int) -> Pieces:
    """Number the 26-connected components of a mask after dilations with the 18-connected element."""
    if dilations:
        mask = ndimage.binary_dilation(mask, NEIGHBOURS, dilations)
    return pieces_of(mask)[0]


def _joined(pieces: Pieces, others: Pieces) -> NDArray[np.int32]:
    """Join all pieces that touch the same piece of `others`; they get the lowest of their numbers.

    A piece that touches several others is joined by the one with the lowest number alone, as in the program. So this
    is not the connected components of touching pieces.

    Returns:
        The new number of each number in `pieces`, with 0 first.
    """
    near = np.argwhere((pieces > 0) & ndimage.binary_dilation(others > 0, NEIGHBOURS))  # (voxels, 3)
    around = near[:, None] + np.argwhere(NEIGHBOURS)  # (voxels, 19, 3), in the padded `others`
    touched = np.pad(others, 1)[tuple(np.moveaxis(around, -1, 0))]  # (voxels, 19)
    nothing = np.iinfo(touched.dtype).max
    lowest = np.full(pieces.max(initial=0) + 1, nothing)  # by piece: the lowest number of the others that it touches
    np.minimum.at(lowest, pieces[tuple(near.T)], np.where(touched, touched, nothing).min(axis=1))
    numbers = np.arange(len(lowest), dtype=np.int32)
    for other in np.unique(lowest[lowest < nothing]):
        group = np.flatnonzero(lowest == other)
        numbers[group] = group[0]
    return numbers


def score_case(
    case: str,
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    spacing: Sequence[float],
    challenge: str,
    cohort: Cohort,
) -> tuple[list[Row], list[Row]]:
    """The rows of one case for scores.csv and lesions.csv, according to the rules of a challenge.

    Args:
        case: its id.
        reference, prediction: label maps (x, y, z) of positions in the cohort's classes.
        spacing: edge lengths of a voxel, mm.
        challenge: one of `CHALLENGES`.
        cohort: has the classes and the regions.

    Raises:
        InputError: there is no such challenge.
    """
    rules = one_of(CHALLENGES, challenge, setting="challenge")
    arguments = reference, prediction, spacing, cohort.classes, cohort.regions
    rows, lesions = (
        case_scores(*arguments, rules) if isinstance(rules, Rules) else matching.case_scores(*arguments, rules)
    )
    return [{"case": case, **row} for row in rows], [{"case": case, **row} for row in lesions]
