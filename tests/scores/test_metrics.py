"""Scores of a region follow their definitions on manually counted masks."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric
from tumour.scores.metrics import region_scores

from tests.masks import MM, blobs, cube, mask


def test_voxel_scores_agree_with_manual_counts():
    reference, prediction = (
        mask(((0, 4), (0, 1), (0, 1)), shape=(5, 2, 1)),
        mask(((1, 5), (0, 1), (0, 1)), shape=(5, 2, 1)),
    )
    prediction[0, 1, 0] = True  # 3 hits, 2 too many, 1 missed, 4 correctly empty
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


@pytest.mark.parametrize("seed", range(3))
def test_swapping_reference_and_prediction_swaps_only_the_asymmetric_scores(seed):
    spacing = (0.9, 1.1, 2.0)
    one, other = (
        region_scores(blobs(seed), blobs(seed + 9), spacing),
        region_scores(blobs(seed + 9), blobs(seed), spacing),
    )
    for name in ("dice", "iou", "accuracy", "hd95", "nsd_0.5", "nsd_1.0"):
        assert one[name] == pytest.approx(other[name])
    assert one["precision"] == other["sensitivity"] and one["error_ml"] == -other["error_ml"]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distances_are_in_mm_along_every_axis(axis):
    spacing, shift = (0.7, 1.3, 2.9), 4
    box = [(2, 22), (2, 22), (2, 22)]
    box[axis] = (8, 9)  # a sheet: nearly all of its surface is moved by the same distance
    sheet = mask(box, shape=(24, 24, 24))
    assert region_scores(sheet, np.roll(sheet, shift, axis), spacing)["hd95"] == pytest.approx(shift * spacing[axis])


def test_hd95_weights_the_surface_by_area_not_by_points():
    reference = mask(((5, 45), (5, 45), (5, 7)), shape=(52, 50, 12))
    prediction = mask(((5, 46), (5, 45), (5, 7)), shape=(52, 50, 12))
    # one side of a plate moves by 1 mm: 123 of 3522 corners (3.5%), but with 10 mm slices 800 of 6400 mm² (12.5%)
    assert region_scores(reference, prediction, (1, 1, 10))["hd95"] == 1
    assert region_scores(reference, prediction, (1, 1, 4))["hd95"] == 1  # 320 of 4480 mm², 7.1%
    assert region_scores(reference, prediction, (1, 1, 2))["hd95"] == 0  # 160 of 3840 mm², 4.2%
    assert region_scores(reference, prediction, MM)["hd95"] == 0


def test_hd95_is_the_larger_of_both_directions():
    near, far = cube(2, 4, 4), cube(12, 4, 4)  # the far side of the second is 10 mm from the first
    assert region_scores(mask(near), mask(near, far), MM)["hd95"] == 10
    assert region_scores(mask(near, far), mask(near), MM)["hd95"] == 10


def test_nsd_is_the_mean_over_both_masks_of_the_share_of_near_border_voxels():
    voxel, line = mask(cube(5, 5, 5, size=1)), mask(((4, 7), (5, 6), (5, 6)))
    scores = region_scores(voxel, line, MM)
    assert scores["nsd_0.5"] == pytest.approx((1 + 1 / 3) / 2) and scores["nsd_1.0"] == 1
    assert region_scores(voxel, line, (1.1, 1, 1))["nsd_1.0"] == pytest.approx((1 + 1 / 3) / 2)
    block = mask(cube(5, 5, 5, size=5))  # its inner voxels are not border voxels
    hollow = block & ~mask(cube(7, 7, 7, size=1))
    assert region_scores(block, hollow, MM)["nsd_0.5"] == pytest.approx((1 + 98 / 104) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_moving_both_masks_changes_no_score(seed):
    here = blobs(seed), blobs(seed + 5)
    there = [np.roll(each, (2, 1, 1), (0, 1, 2)) for each in here]
    assert region_scores(*here, MM) == pytest.approx(region_scores(*there, MM))


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
def test_false_negatives_and_false_positives_cost_a_penalty_where_monai_gives_nan():
    assert_errors_count(our_scores)
    with pytest.raises(AssertionError):
        assert_errors_count(monai_scores)
    some, empty = mask(cube(4, 4, 4)), mask()
    assert math.isnan(monai_scores(some, empty)[1]) and math.isnan(monai_scores(empty, some)[1])


def test_false_positives_in_patients_without_the_region_lower_the_mean_while_monai_excludes_them():
    some, empty = mask(cube(4, 4, 4)), mask()
    cases = [(some, some), (empty, some)]  # one perfect, one false alarm
    assert np.mean([our_scores(*case)[0] for case in cases]) == 0.5
    metric = DiceMetric()
    for reference, prediction in cases:
        metric(torch.as_tensor(prediction)[None, None].float(), torch.as_tensor(reference)[None, None].float())
    assert metric.aggregate().item() == 1  # this is why it is not used for reports
