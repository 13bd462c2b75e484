"""Scores agree with the 2023 organisers' program, and hold to the challenges' definitions on cases counted by hand."""

import json
import math
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric

from tools.metrics import CHALLENGES, case_scores, lesion_scores, region_scores

GOLDENS = Path(__file__).parents[1] / ".." / "shared" / "goldens"
CLASSES = ["background", "necrotic", "oedema", "enhancing"]
REGIONS = {"TC": ["necrotic", "enhancing"], "WT": ["necrotic", "oedema", "enhancing"], "ET": ["enhancing"]}
MM = (1.0, 1.0, 1.0)


def mask(*boxes, shape=(30, 24, 18)):
    """True within boxes, each (start, stop) by axis."""
    out = np.zeros(shape, bool)
    for box in boxes:
        out[tuple(slice(*axis) for axis in box)] = True
    return out


def cube(*start, size=3):
    return [(s, s + size) for s in start]


def lesions(reference, prediction, challenge, spacing=MM, region="WT"):
    return lesion_scores(reference, prediction, spacing, CHALLENGES[challenge].of(region, reference.shape))


def counts(scores):
    return tuple(scores[f"lesions_{name}"] for name in ("found", "missed", "invented"))


@pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"the organisers' figures are not there: {GOLDENS}")
@pytest.mark.parametrize("case", ["BraTS-MET-00132-000", "BraTS-MET-00217-000"])
def test_every_figure_of_the_2023_program_is_met(case):
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
        rows, _ = case_scores(*maps, MM, CLASSES, REGIONS, CHALLENGES[challenge])
        ours = {row["region"]: row for row in rows if row["kind"] == "region"}
        for golden in goldens[f"{case}/{theirs}"]:
            row = ours[golden["Labels"]]
            assert counts(row) == (golden["Num_TP"], golden["Num_FN"], golden["Num_FP"])
            for name, own in names.items():
                assert row[own] == pytest.approx(golden[name], abs=1e-6), (challenge, golden["Labels"], name)


# Regions ------------------------------------------------------------------------------------------------------------
def test_voxel_scores_are_those_counted_by_hand():
    reference, prediction = (
        mask(((0, 4), (0, 1), (0, 1)), shape=(5, 2, 1)),
        mask(((1, 5), (0, 1), (0, 1)), shape=(5, 2, 1)),
    )
    prediction[0, 1, 0] = True  # 3 hits, 2 too many, 1 missed, 4 rightly left
    scores = region_scores(reference, prediction, (1, 2, 3))
    expected = {
        "dice": 6 / 9,
        "iou": 3 / 6,
        "precision": 3 / 5,
        "sensitivity": 3 / 4,
        "specificity": 4 / 6,
        "accuracy": 0.7,
    }
    volumes = {"reference_ml": 0.024, "predicted_ml": 0.03, "error_ml": 0.006}
    assert {name: scores[name] for name in expected | volumes} == pytest.approx(expected | volumes)


def test_both_empty_is_perfect_and_one_empty_is_worst():
    empty, full, some = mask(), ~mask(), mask(cube(4, 4, 4))
    for perfect in (region_scores(empty, empty, MM), region_scores(full, full, MM)):
        assert (perfect["dice"], perfect["iou"], perfect["hd95"], perfect["nsd_0.5"], perfect["accuracy"]) == (
            1,
            1,
            0,
            1,
            1,
        )
        assert (perfect["precision"], perfect["sensitivity"]) == (1, 1)
    for worst in (region_scores(some, empty, MM, 337), region_scores(empty, some, MM, 337)):
        assert (worst["dice"], worst["iou"], worst["hd95"], worst["nsd_0.5"], worst["nsd_1.0"]) == (0, 0, 337, 0, 0)
        assert (worst["precision"], worst["sensitivity"]) == (0, 0)
    penalties = {name: rules.of("WT", (3, 4, 12)).penalty for name, rules in CHALLENGES.items()}
    assert penalties["legacy"] == pytest.approx(373.13, abs=0.005) and penalties["glioma2023"] == 374
    assert penalties["glioma2024"] == 337 and penalties["metastases2024"] == 13  # the grid's own diagonal


def blobs(seed):
    random = np.random.default_rng(seed)
    return mask(*(cube(*random.integers(3, (20, 16, 10)), size=random.integers(1, 6)) for _ in range(4)))


@pytest.mark.parametrize("seed", range(3))
def test_swapping_reference_and_prediction_swaps_only_what_has_a_side(seed):
    spacing = (0.9, 1.1, 2.0)
    one, other = (
        region_scores(blobs(seed), blobs(seed + 9), spacing),
        region_scores(blobs(seed + 9), blobs(seed), spacing),
    )
    for name in ("dice", "iou", "accuracy", "hd95", "nsd_0.5", "nsd_1.0"):
        assert one[name] == pytest.approx(other[name])
    assert one["precision"] == other["sensitivity"] and one["error_ml"] == -other["error_ml"]


@pytest.mark.parametrize("challenge", ["metastases2023", "glioma2024"])
def test_moving_both_masks_moves_only_the_centres(challenge):
    here, there = (
        (blobs(1), blobs(2)),
        (np.roll(blobs(1), (2, 1, 1), (0, 1, 2)), np.roll(blobs(2), (2, 1, 1), (0, 1, 2))),
    )
    assert region_scores(*here, MM) == pytest.approx(region_scores(*there, MM))
    (scores, rows), (moved_scores, moved_rows) = lesions(*here, challenge), lesions(*there, challenge)
    assert scores == pytest.approx(moved_scores) and len(rows) == len(moved_rows) > 0
    for row, moved in zip(rows, moved_rows, strict=True):
        assert [moved.pop(axis) - row.pop(axis) for axis in "xyz"] == [2, 1, 1]
        assert row == pytest.approx(moved)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distances_are_in_mm_along_every_axis(axis):
    spacing, shift = (0.7, 1.3, 2.9), 4
    box = [(2, 22), (2, 22), (2, 22)]
    box[axis] = (8, 9)  # a sheet: nearly all of its surface is as far away as it is moved
    sheet = mask(box, shape=(24, 24, 24))
    assert region_scores(sheet, np.roll(sheet, shift, axis), spacing)["hd95"] == pytest.approx(shift * spacing[axis])


def test_hd95_weighs_the_surface_by_area_not_by_points():
    reference = mask(((5, 45), (5, 45), (5, 7)), shape=(52, 50, 12))
    prediction = mask(((5, 46), (5, 45), (5, 7)), shape=(52, 50, 12))
    # one side of a plate moves by 1 mm: 123 of 3522 corners (3.5%), but with 10 mm slices 800 of 6400 mm² (12.5%)
    assert region_scores(reference, prediction, (1, 1, 10))["hd95"] == 1
    assert region_scores(reference, prediction, MM)["hd95"] == 0


def test_hd95_is_that_of_the_worse_direction():
    near, far = cube(2, 4, 4), cube(12, 4, 4)  # the far side of the second lies 10 mm from the first
    assert region_scores(mask(near), mask(near, far), MM)["hd95"] == 10
    assert region_scores(mask(near, far), mask(near), MM)["hd95"] == 10


def test_nsd_is_the_mean_over_both_masks_of_the_share_of_near_border_voxels():
    voxel, line = mask(cube(5, 5, 5, size=1)), mask(((4, 7), (5, 6), (5, 6)))
    scores = region_scores(voxel, line, MM)
    assert scores["nsd_0.5"] == pytest.approx((1 + 1 / 3) / 2) and scores["nsd_1.0"] == 1
    assert region_scores(voxel, line, (1.1, 1, 1))["nsd_1.0"] == pytest.approx((1 + 1 / 3) / 2)
    block = mask(cube(5, 5, 5, size=5))  # its inner voxels are no border
    hollow = block & ~mask(cube(7, 7, 7, size=1))
    assert region_scores(block, hollow, MM)["nsd_0.5"] == pytest.approx((1 + 98 / 104) / 2)


# Lesions ------------------------------------------------------------------------------------------------------------
def test_one_lesion_scores_as_its_region():
    reference, prediction = mask(((4, 12), (4, 12), (4, 12))), mask(((6, 13), (3, 11), (5, 12)))
    for challenge in set(CHALLENGES) - {"legacy"}:
        whole, (scores, rows) = region_scores(reference, prediction, MM), lesions(reference, prediction, challenge)
        for name in ("dice", "hd95", "nsd_0.5", "nsd_1.0"):
            assert scores[f"lesion_{name}"] == pytest.approx(whole[name]) == rows[0][name]
        assert counts(scores) == (1, 0, 0) and [rows[0][axis] for axis in "xyz"] == [8, 7, 7.5]


def test_nothing_to_find_and_nothing_found_is_perfect():
    scores, rows = lesions(mask(), mask(), "glioma2023")
    assert (scores["lesion_dice"], scores["lesion_hd95"], scores["lesion_nsd_1.0"], counts(scores), rows) == (
        1,
        0,
        1,
        (0, 0, 0),
        [],
    )


@pytest.mark.parametrize(("challenge", "gap"), [("metastases2023", 2), ("glioma2023", 6)])
def test_lesions_whose_dilated_blobs_touch_are_one(challenge, gap):
    def apart(voxels):
        return mask(((2, 6), (2, 8), (2, 8)), ((6 + voxels, 10 + voxels), (2, 8), (2, 8)))

    for voxels, number in ((gap, 1), (gap + 1, 2)):
        assert counts(lesions(apart(voxels), mask(), challenge)[0]) == (0, number, 0)


@pytest.mark.parametrize(("offset", "number"), [((2, 2, 3), 1), ((3, 3, 3), 2)])
def test_lesions_are_dilated_over_faces_and_edges_but_not_corners(offset, number):
    reference = mask(cube(8, 8, 8, size=1), cube(*(8 + o for o in offset), size=1))
    assert counts(lesions(reference, mask(), "metastases2023", spacing=(2, 2, 2))[0]) == (0, number, 0)


def test_pieces_that_touch_at_a_corner_are_one():
    pair = mask(cube(8, 8, 8), cube(11, 11, 11))
    assert counts(lesions(mask(), pair, "metastases2023")[0]) == (0, 0, 1)


def test_a_lesion_takes_all_pieces_near_it_and_a_piece_goes_to_all_lesions_near_it():
    left, right = ((2, 6), (4, 8), (4, 8)), ((14, 18), (4, 8), (4, 8))
    bridge = ((5, 15), (4, 8), (4, 8))  # reaches one voxel into each
    speck = ((2, 4), (8, 9), (4, 8))  # beside the left lesion, within its blob of one dilation
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
    assert counts(lesions(mask(), mask(small), "metastases2023")[0]) == (0, 0, 1)  # inventions have no least size


def test_since_2024_predicted_pieces_are_merged_and_small_ones_dropped():
    small, neighbour = ((12, 14), (4, 5), (4, 5)), ((16, 18), (4, 5), (4, 5))
    assert counts(lesions(mask(), mask(small), "metastases2024")[0]) == (0, 0, 0)
    assert counts(lesions(mask(), mask(small, neighbour), "metastases2024")[0]) == (0, 0, 1)
    assert counts(lesions(mask(), mask(small, neighbour), "metastases2023")[0]) == (0, 0, 2)
    assert counts(lesions(mask(cube(11, 4, 4)), mask(small), "metastases2024")[0]) == (0, 1, 0)


# Cases --------------------------------------------------------------------------------------------------------------
def test_regions_and_classes_stand_side_by_side_and_the_cavity_is_no_tumour():
    classes, regions = [*CLASSES, "cavity"], {**REGIONS, "RC": ["cavity"]}
    members = {"TC": (1, 3), "WT": (1, 2, 3), "ET": (3,), "RC": (4,), "necrotic": (1,), "oedema": (2,)}
    random = np.random.default_rng(0)
    reference, prediction = random.integers(0, 5, (2, 7, 6, 5), np.uint8)
    rows, _ = case_scores(reference, prediction, MM, classes, regions, CHALLENGES["legacy"])
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
    rows, rows_of_lesions = case_scores(reference, empty, MM, [*CLASSES, "cavity"], regions, CHALLENGES["glioma2024"])
    missed = {row["region"]: row["lesions_missed"] for row in rows}
    assert missed["ET"] == missed["enhancing"] == 2  # above 10 mm³
    assert missed["RC"] == missed["cavity"] == 1  # 5 dilations bridge them, and 24 mm³ are above 20
    assert missed["WT"] == 0  # not above 20 mm³, and 3 dilations do not bridge them
    assert {row["outcome"] for row in rows_of_lesions if row["region"] == "WT"} == {"small"}


# MONAI's plain metrics ----------------------------------------------------------------------------------------------
def our_scores(reference, prediction):
    scores = region_scores(reference, prediction, MM)
    return scores["dice"], scores["hd95"]


def monai_scores(reference, prediction):
    pair = [torch.as_tensor(each)[None, None].float() for each in (prediction, reference)]
    return [metric(*pair).item() for metric in (DiceMetric(), HausdorffDistanceMetric(percentile=95))]


def assert_errors_count(scores):
    some, empty = mask(cube(4, 4, 4)), mask()
    for reference, prediction in ((some, empty), (empty, some)):
        dice, hd95 = scores(reference, prediction)
        assert dice == 0 and math.isfinite(hd95) and hd95 > 100


@pytest.mark.filterwarnings("ignore")
def test_misses_and_false_alarms_cost_a_penalty_where_monai_gives_nan():
    assert_errors_count(our_scores)
    with pytest.raises(AssertionError):
        assert_errors_count(monai_scores)
    some, empty = mask(cube(4, 4, 4)), mask()
    assert math.isnan(monai_scores(some, empty)[1]) and math.isnan(monai_scores(empty, some)[1])


def test_false_alarms_in_patients_without_the_region_lower_the_mean_where_monai_leaves_them_out():
    some, empty = mask(cube(4, 4, 4)), mask()
    cases = [(some, some), (empty, some)]  # one perfect, one false alarm
    assert np.mean([our_scores(*case)[0] for case in cases]) == 0.5
    metric = DiceMetric()
    for reference, prediction in cases:
        metric(torch.as_tensor(prediction)[None, None].float(), torch.as_tensor(reference)[None, None].float())
    assert metric.aggregate().item() == 1  # this is why it is not used for reports
