"""Scores agree with the organisers' program of 2023 and follow the challenges' rules on manually counted cases."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tumour.scores.challenges import FAR, LESION_WISE, case_scores, lesion_scores
from tumour.scores.metrics import region_scores

from tests.cohorts import CLASSES, REGIONS
from tests.masks import MM, blobs, cube, mask

GOLDENS = Path(__file__).parents[2] / ".." / "shared" / "goldens"


def lesions(reference, prediction, challenge, spacing=MM, region="WT"):
    return lesion_scores(reference, prediction, spacing, LESION_WISE[challenge].for_region(region, reference.shape))


def counts(scores):
    return tuple(scores[f"lesions_{name}"] for name in ("found", "missed", "invented"))


@pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"the organisers' figures are missing: {GOLDENS}")
@pytest.mark.parametrize("case", ["BraTS-MET-00132-000", "BraTS-MET-00217-000"])
def test_every_figure_of_the_2023_program_is_reproduced(case):
    names = {
        "Sensitivity": "sensitivity",
        "Specificity": "specificity",
        "Legacy_Dice": "dice",
        "Legacy_HD95": "hd95",
        "LesionWise_Score_Dice": "lesion_dice",
        "LesionWise_Score_HD95": "lesion_hd95",
    }
    maps = [np.asarray(nibabel.load(GOLDENS / f"{case}-{kind}.nii.gz").dataobj) for kind in ("seg", "pred")]
    goldens = json.loads((GOLDENS / "goldens_2023.json").read_text())
    for theirs, challenge in {"BraTS-MET": "metastases2023", "BraTS-GLI": "glioma2023"}.items():
        rows, _ = case_scores(*maps, MM, CLASSES, REGIONS, LESION_WISE[challenge])
        ours = {row["region"]: row for row in rows if row["kind"] == "region"}
        for golden in goldens[f"{case}/{theirs}"]:
            row = ours[golden["Labels"]]
            assert counts(row) == (golden["Num_TP"], golden["Num_FN"], golden["Num_FP"])
            for name, own in names.items():
                assert row[own] == pytest.approx(golden[name], abs=1e-6), (challenge, golden["Labels"], name)


def test_the_penalty_is_that_of_the_challenge():
    penalties = {name: rules.for_region("WT", (3, 4, 12)).penalty for name, rules in LESION_WISE.items()}
    assert penalties["legacy"] == pytest.approx(373.13, abs=0.005) and penalties["glioma2023"] == 374
    assert penalties["glioma2024"] == 337 and penalties["metastases2024"] == 13  # the grid's own diagonal


@pytest.mark.parametrize("challenge", ["metastases2023", "glioma2024"])
def test_moving_both_masks_moves_only_the_centres(challenge):
    here, there = (
        (blobs(1), blobs(2)),
        (np.roll(blobs(1), (2, 1, 1), (0, 1, 2)), np.roll(blobs(2), (2, 1, 1), (0, 1, 2))),
    )
    (scores, rows), (moved_scores, moved_rows) = lesions(*here, challenge), lesions(*there, challenge)
    assert scores == pytest.approx(moved_scores) and len(rows) == len(moved_rows) > 0
    for row, moved in zip(rows, moved_rows, strict=True):
        assert [moved.pop(axis) - row.pop(axis) for axis in "xyz"] == [2, 1, 1]
        assert row == pytest.approx(moved)


# Lesions ------------------------------------------------------------------------------------------------------------
def test_one_lesion_scores_as_its_region():
    reference, prediction = mask(((4, 12), (4, 12), (4, 12))), mask(((6, 13), (3, 11), (5, 12)))
    for challenge in set(LESION_WISE) - {"legacy"}:
        whole, (scores, rows) = region_scores(reference, prediction, MM), lesions(reference, prediction, challenge)
        for name in ("dice", "hd95", "nsd_0.5", "nsd_1.0"):
            assert scores[f"lesion_{name}"] == pytest.approx(whole[name]) == rows[0][name]
        assert counts(scores) == (1, 0, 0) and [rows[0][axis] for axis in "xyz"] == [8, 7, 7.5]


def test_an_empty_prediction_of_an_empty_reference_is_perfect():
    scores, rows = lesions(mask(), mask(), "glioma2023")
    assert (scores["lesion_dice"], scores["lesion_hd95"], scores["lesion_nsd_1.0"], counts(scores), rows) == (
        1,
        0,
        1,
        (0, 0, 0),
        [],
    )


@pytest.mark.parametrize(
    ("challenge", "region", "dilations", "smallest"),
    [  # of the organisers' programs
        *(("glioma2023", "WT", 3, 50), ("africa2023", "WT", 3, 50), ("pediatric2023", "WT", 3, 50)),
        *(("meningioma2023", "WT", 1, 50), ("meningioma2025", "WT", 1, 50), ("metastases2023", "WT", 1, 2)),
        *(("metastases2024", "ET", 1, 2), ("africa2024", "ET", 3, 50), ("africa2025", "ET", 3, 50)),
        *(("pediatric2024", "WT", 5, 10), ("pediatric2025", "WT", 5, 10)),
        *(("glioma2024", region, 3, 20) for region in ("TC", "WT", "oedema")),
        *(("glioma2024", region, 5, 20) for region in ("RC", "cavity", "necrotic")),
        *(("glioma2025", region, 3, 10) for region in ("ET", "enhancing")),
    ],
)
def test_lesions_whose_dilated_blobs_touch_are_one_and_small_ones_do_not_count(challenge, region, dilations, smallest):
    def missed(*boxes):
        reference = mask(*boxes, shape=(60, 10, 10))
        return counts(lesions(reference, np.zeros_like(reference), challenge, region=region)[0])[1]

    for gap, number in ((2 * dilations, 1), (2 * dilations + 1, 2)):
        assert missed([(2, 6), (2, 8), (2, 8)], [(6 + gap, 10 + gap), (2, 8), (2, 8)]) == number
    for mm3, number in ((smallest, 0), (smallest + 1, 1)):
        assert missed([(2, 2 + mm3), (4, 5), (4, 5)]) == number


@pytest.mark.parametrize(("offset", "number"), [((2, 2, 3), 1), ((3, 3, 3), 2)])
def test_lesions_are_dilated_across_faces_and_edges_but_not_corners(offset, number):
    reference = mask(cube(8, 8, 8, size=1), cube(*(8 + o for o in offset), size=1))
    assert counts(lesions(reference, mask(), "metastases2023", spacing=(2, 2, 2))[0]) == (0, number, 0)


def test_pieces_that_touch_at_a_corner_are_one():
    pair = mask(cube(8, 8, 8), cube(11, 11, 11))
    assert counts(lesions(mask(), pair, "metastases2023")[0]) == (0, 0, 1)


def test_a_lesion_is_matched_with_all_pieces_near_it_and_a_piece_with_all_lesions_near_it():
    left, right = ((2, 6), (4, 8), (4, 8)), ((14, 18), (4, 8), (4, 8))
    bridge = ((5, 15), (4, 8), (4, 8))  # reaches one voxel into each
    speck = ((2, 4), (8, 9), (4, 8))  # next to the left lesion, within its blob of one dilation
    scores, rows = lesions(mask(left, right), mask(bridge, speck), "metastases2023")
    assert counts(scores) == (2, 0, 0)
    assert [row["predicted_ml"] for row in rows] == [pytest.approx(0.168), pytest.approx(0.16)]
    assert [row["dice"] for row in rows] == [pytest.approx(2 * 16 / (64 + 168)), pytest.approx(2 * 16 / (64 + 160))]
    assert scores["lesion_dice"] == pytest.approx(np.mean([row["dice"] for row in rows]))


def test_found_missed_and_invented_lesions_share_the_score():
    hit, missed, invented = cube(2, 2, 2), cube(12, 2, 2), cube(22, 14, 12)
    scores, rows = lesions(mask(hit, missed), mask(hit, invented), "metastases2023")
    assert counts(scores) == (1, 1, 1) and [row["outcome"] for row in rows] == ["found", "missed", "invented"]
    assert scores["lesion_dice"] == scores["lesion_nsd_0.5"] == pytest.approx(1 / 3)
    assert scores["lesion_hd95"] == pytest.approx((0 + 374 + 374) / 3)
    assert [rows[2][axis] for axis in "xyz"] == [23, 15, 13]


def test_small_reference_lesions_do_not_count_nor_do_predictions_on_them():
    large, small = cube(2, 2, 2), ((12, 14), (4, 5), (4, 5))
    scores, rows = lesions(mask(large, small), mask(large, cube(12, 4, 4)), "metastases2023")
    assert counts(scores) == (1, 0, 0) and scores["lesion_dice"] == 1 and rows[1]["outcome"] == "small"
    assert counts(lesions(mask(large, small), mask(large), "metastases2023")[0]) == (1, 0, 0)
    assert counts(lesions(mask(large, small), mask(large), "metastases2023", spacing=(2, 1, 1))[0]) == (
        1,
        1,
        0,
    )  # 4 mm³
    assert counts(lesions(mask(), mask(small), "metastases2023")[0]) == (
        0,
        0,
        1,
    )  # false positives have no minimum size


def test_since_2024_predicted_pieces_are_merged_and_small_ones_dropped():
    small, neighbour = ((12, 14), (4, 5), (4, 5)), ((16, 18), (4, 5), (4, 5))
    assert counts(lesions(mask(), mask(small), "metastases2024")[0]) == (0, 0, 0)
    assert counts(lesions(mask(), mask(small, neighbour), "metastases2024")[0]) == (0, 0, 1)
    assert counts(lesions(mask(), mask(small, neighbour), "metastases2023")[0]) == (0, 0, 2)
    assert counts(lesions(mask(cube(11, 4, 4)), mask(small), "metastases2024")[0]) == (0, 1, 0)


# Cases --------------------------------------------------------------------------------------------------------------
def test_regions_and_classes_are_both_scored_and_the_cavity_is_not_tumour():
    classes, regions = [*CLASSES, "cavity"], {**REGIONS, "RC": ["cavity"]}
    members = {"TC": (1, 3), "WT": (1, 2, 3), "ET": (3,), "RC": (4,), "necrotic": (1,), "oedema": (2,)}
    random = np.random.default_rng(0)
    reference, prediction = random.integers(0, 5, (2, 7, 6, 5), np.uint8)
    rows, _ = case_scores(reference, prediction, MM, classes, regions, LESION_WISE["legacy"])
    assert [row["kind"] for row in rows] == ["region"] * 4 + ["class"] * 4 and "lesion_dice" not in rows[0]
    scores = {row.pop("region"): row for row in rows}
    assert {**scores["ET"], "kind": "class"} == scores["enhancing"] and {**scores["RC"], "kind": "class"} == scores[
        "cavity"
    ]
    for name, values in members.items():
        a, b = np.isin(reference, values), np.isin(prediction, values)
        assert scores[name]["dice"] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum())), name


def test_the_2024_glioma_rules_differ_by_region():
    reference = np.zeros((30, 12, 12), np.uint8)
    for value, x in product((3, 4), (2, 14)):  # two pieces of 12 voxels of ET and of RC, 10 voxels apart
        reference[x : x + 2, 4 * (value - 3) + 1 : 4 * (value - 3) + 4, 3:5] = value
    regions = {"ET": ["enhancing"], "RC": ["cavity"], "WT": ["necrotic", "oedema", "enhancing"]}
    empty = np.zeros_like(reference)
    rows, rows_of_lesions = case_scores(reference, empty, MM, [*CLASSES, "cavity"], regions, LESION_WISE["glioma2024"])
    missed = {row["region"]: row["lesions_missed"] for row in rows}
    assert missed["ET"] == missed["enhancing"] == 2  # above 10 mm³
    assert missed["RC"] == missed["cavity"] == 1  # 5 dilations bridge them, and 24 mm³ are above 20
    assert missed["WT"] == 0  # not above 20 mm³, and 3 dilations do not bridge them
    assert {row["outcome"] for row in rows_of_lesions if row["region"] == "WT"} == {"small"}


# Joining, since 2024 --------------------------------------------------------------------------------------------------
def painted(*boxes, shape=(40, 20, 16)):
    """A label map of (position in `classes`, box)."""
    label = np.zeros(shape, np.uint8)
    for value, box in boxes:
        label[mask(box, shape=shape)] = value
    return label


def missed(reference, challenge, classes=CLASSES):
    """The number of lesions of each class and of ET, by the rules of a challenge."""
    names = {**REGIONS, "RC": ["cavity"]} if "cavity" in classes else REGIONS
    rows, _ = case_scores(reference, np.zeros_like(reference), MM, classes, names, LESION_WISE[challenge])
    return {row["region"]: row["lesions_missed"] for row in rows}


LEFT, CORE, RIGHT = [(2, 8), (4, 9), (4, 9)], [(8, 20), (4, 9), (4, 9)], [(20, 26), (4, 9), (4, 9)]


@pytest.mark.parametrize(("challenge", "number"), [("metastases2023", 2), ("metastases2024", 1), ("glioma2024", 1)])
def test_enhancing_pieces_at_one_necrosis_are_one_lesion_since_2024(challenge, number):
    reference = painted((3, LEFT), (1, CORE), (3, RIGHT))
    assert missed(reference, challenge)["ET"] == missed(reference, challenge)["enhancing"] == number
    assert missed(painted((3, LEFT), (3, RIGHT)), challenge)["ET"] == 2  # nothing between them
    assert missed(painted((3, LEFT), (2, CORE), (3, RIGHT)), challenge)["ET"] == 2  # oedema joins nothing


def test_necrosis_joins_across_edges_but_not_across_corners():
    edge = painted((3, cube(2, 2, 2)), (1, [(5, 12), (5, 6), (4, 5)]), (3, cube(12, 2, 2)))
    corner = painted((3, cube(2, 2, 2)), (1, [(5, 12), (5, 6), (5, 6)]), (3, cube(12, 2, 2)))
    assert missed(edge, "metastases2024")["ET"] == 1 and missed(corner, "metastases2024")["ET"] == 2


def test_the_glioma_rules_join_over_necrosis_oedema_and_cavity_and_those_of_metastases_do_not():
    classes = [*CLASSES, "cavity"]
    for value, bridge, name in [(1, 3, "necrotic"), (2, 4, "oedema"), (4, 1, "RC"), (3, 4, "ET")]:
        apart = [(24, 30), (4, 9), (4, 9)]  # 16 voxels away: no dilation bridges them
        reference = painted((value, LEFT), (bridge, [(8, 24), (4, 9), (4, 9)]), (value, apart))
        assert missed(reference, "glioma2024", classes)[name] == 1
        assert missed(reference, "metastases2024", classes)[name] == 2


def test_predicted_pieces_are_joined_like_those_of_the_reference():
    reference = painted((3, LEFT))
    prediction = painted((3, LEFT), (1, CORE), (3, RIGHT))
    rows, _ = case_scores(reference, prediction, MM, CLASSES, REGIONS, LESION_WISE["metastases2024"])
    row = next(row for row in rows if row["region"] == "ET")
    assert counts(row) == (1, 0, 0)  # the right half belongs to what was found
    assert row["lesion_dice"] == pytest.approx(2 * 150 / (150 + 300))


@pytest.mark.parametrize(("gap", "number"), [(2, 1), (3, 2)])
def test_pieces_of_necrosis_whose_blobs_touch_join_as_one(gap, number):
    first, second = [(8, 12), (4, 9), (4, 9)], [(12 + gap, 20), (4, 9), (4, 9)]
    assert missed(painted((3, LEFT), (1, first), (1, second), (3, RIGHT)), "metastases2024")["ET"] == number


@pytest.mark.parametrize(("width", "invented"), [(1, 2), (3, 1)])
def test_predicted_necrosis_that_is_too_small_to_count_joins_nothing(width, invented):
    bridge = [(5, 13), (2, 2 + width), (2, 2 + width)]  # 8 or 72 voxels; 20 do not count
    prediction = painted((3, cube(2, 2, 2)), (1, bridge), (3, cube(13, 2, 2)))
    rows, _ = case_scores(np.zeros_like(prediction), prediction, MM, CLASSES, REGIONS, LESION_WISE["glioma2024"])
    assert next(row for row in rows if row["region"] == "ET")["lesions_invented"] == invented


def test_enhancing_tumour_that_joins_cavities_counts_from_its_own_smallest_size():
    bridge = [(5, 20), (3, 4), (3, 4)]  # 15 voxels: of ET 10 do not count, of other classes 20
    prediction = painted((4, cube(2, 2, 2)), (3, bridge), (4, cube(20, 2, 2)))
    classes, regions = [*CLASSES, "cavity"], {"RC": ["cavity"]}
    rows, _ = case_scores(np.zeros_like(prediction), prediction, MM, classes, regions, LESION_WISE["glioma2024"])
    assert rows[0]["region"] == "RC" and rows[0]["lesions_invented"] == 1


# The same in another way: sets of voxels and plain loops -------------------------------------------------------------
OFFSETS = [offset for offset in product((-1, 0, 1), repeat=3) if any(offset)]
EDGES = [offset for offset in OFFSETS if np.abs(offset).sum() < 3]


def around(voxels, offsets, shape):
    grown = {tuple(np.add(v, o)) for v in voxels for o in offsets} | voxels
    return {v for v in grown if all(0 <= c < edge for c, edge in zip(v, shape, strict=True))}


def components(voxels):
    """26-connected sets, in the order of their first voxels."""
    left, found = set(voxels), []
    for first in sorted(voxels):
        if first in left:
            component, new = set(), {first}
            while new:
                component |= new
                left -= new
                new = {tuple(np.add(v, o)) for v in new for o in OFFSETS} & left
            found.append(component)
    return found


def by_hand(label, value, dilations, smallest=0):
    """The merged pieces of a class."""
    voxels = {tuple(v) for v in np.argwhere(label == value).tolist()}
    grown = voxels
    for _ in range(dilations):
        grown = around(grown, EDGES, label.shape)
    pieces = [component & voxels for component in components(grown)]
    return [piece for piece in pieces if len(piece) > smallest]


def join_by_hand(pieces, others, shape):
    joined, leads = [], {}
    for piece in pieces:
        first = next((i for i, other in enumerate(others) if around(piece, EDGES, shape) & other), None)
        if first in leads:
            leads[first] |= piece
        else:
            joined.append(set(piece))
            if first is not None:
                leads[first] = joined[-1]
    return joined


@pytest.mark.parametrize("seed", range(12))
def test_lesions_of_2024_are_the_same_as_found_by_plain_loops_over_voxels(seed):
    random = np.random.default_rng(seed)
    shape = (26, 12, 9)
    reference, prediction = (
        painted(
            *((random.integers(1, 4), cube(*random.integers(0, (24, 10, 7)), size=2)) for _ in range(9)), shape=shape
        )
        for _ in range(2)
    )
    truth = join_by_hand(by_hand(reference, 3, 1), by_hand(reference, 1, 1), shape)
    guess = join_by_hand(by_hand(prediction, 3, 1, 2), by_hand(prediction, 1, 1, 2), shape)
    near = [[piece for piece in guess if piece & around(lesion, EDGES, shape)] for lesion in truth]
    overlaps = [len(lesion & set().union(*pieces)) for lesion, pieces in zip(truth, near, strict=True)]
    sizes = [len(lesion) + sum(map(len, pieces)) for lesion, pieces in zip(truth, near, strict=True)]
    large = [len(lesion) > 2 for lesion in truth]
    invented = sum(all(piece not in g for g in near) for piece in guess)
    found = sum(keep and bool(g) for keep, g in zip(large, near, strict=True))
    rows, _ = case_scores(reference, prediction, MM, CLASSES, REGIONS, LESION_WISE["metastases2024"])
    row = next(row for row in rows if row["region"] == "ET")
    assert counts(row) == (found, sum(large) - found, invented)
    counted = [2 * o / size for o, size, keep in zip(overlaps, sizes, large, strict=True) if keep] + [0] * invented
    assert row["lesion_dice"] == pytest.approx(np.mean(counted) if counted else 1)


@pytest.mark.parametrize("challenge", ["legacy", "glioma2023", "glioma2024", "metastases2024", "pediatric2024"])
def test_empty_space_around_the_tumour_changes_only_what_it_must(challenge):
    random, shape, corner = np.random.default_rng(0), (24, 20, 16), (9, 14, 8)
    assert max(rules.dilations for rules in LESION_WISE.values()) < FAR
    small = [random.integers(0, 5, shape) * (random.random(shape) < 0.04) for _ in range(2)]
    large = [np.zeros((60, 50, 40), int) for _ in range(2)]
    for inner, outer in zip(small, large, strict=True):
        outer[tuple(slice(a, a + b) for a, b in zip(corner, shape, strict=True))] = inner
    padded = [np.pad(inner, FAR) for inner in small]  # its dilations do not end at the edge of the grid
    classes, rules = (*CLASSES, "cavity"), LESION_WISE[challenge]
    (rows, lesions), (far, far_lesions) = (
        case_scores(*pair, MM, classes, REGIONS, replace(rules, penalty=99)) for pair in (padded, large)
    )
    for row, other in zip(rows, far, strict=True):
        for name in row.keys() - {"specificity", "accuracy"}:
            assert other[name] == row[name], name
        wrong = round((1 - row["accuracy"]) * padded[0].size)
        assert other["accuracy"] == pytest.approx(1 - wrong / large[0].size)
        outside = 1 - row["specificity"], 1 - other["specificity"]
        assert outside[0] > outside[1] > 0
    for lesion, other in zip(lesions, far_lesions, strict=True):
        moved = {axis: lesion[axis] + start - FAR for axis, start in zip("xyz", corner, strict=True)}
        assert other == lesion | moved
