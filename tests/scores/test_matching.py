"""Scores of 2026 agree with manual counts: lesions are matched one to one."""

import math

import numpy as np
import pandas as pd
import pytest
from tumour.scores.challenges import ONE_TO_ONE, score_case
from tumour.scores.tables import table, write_scores

from tests.cohorts import COHORTS
from tests.masks import MM, cube, mask

SCORES = ("lesion_dice", "lesion_hd95", "lesion_nsd")


def scores(reference, prediction, challenge="goat2026", spacing=MM):
    return ONE_TO_ONE[challenge].scores(reference, prediction, spacing)


def counts(row):
    return tuple(row[f"lesions_{name}"] for name in ("found", "missed", "invented"))


def test_of_two_pieces_on_a_lesion_one_is_found_and_the_other_invented():
    lesion = mask(((2, 12), (2, 5), (2, 5)))
    row, lesions = scores(lesion, mask(((2, 6), (2, 5), (2, 5)), ((8, 10), (2, 5), (2, 5))))
    assert counts(row) == (1, 0, 1) and row["lesion_f1"] == pytest.approx(2 / 3)
    assert row["lesion_dice"] == pytest.approx(2 * 36 / (90 + 36))  # of the larger piece, not of both
    assert row["dice"] == pytest.approx(2 * 54 / (90 + 54))
    assert [lesion["outcome"] for lesion in lesions] == ["found", "invented"]


def test_the_pairs_have_the_largest_sum_of_dice_not_the_largest_first():
    reference = mask(((2, 12), (2, 3), (2, 3)), ((14, 17), (2, 3), (2, 3)))
    prediction = mask(((2, 4), (2, 3), (2, 3)), ((5, 17), (2, 3), (2, 3)))
    # lesions of 10 and 3, pieces of 2 and 12: Dice 4/12, 14/22 and 6/15; 4/12 + 6/15 is more than 14/22
    row, _ = scores(reference, prediction)
    assert counts(row) == (2, 0, 0) and row["lesion_dice"] == pytest.approx((4 / 12 + 6 / 15) / 2)


def test_of_equal_sums_the_one_with_more_pairs_counts():
    lines = [mask(((start, start + 4), (2, 3), (2, 3))) for start in (0, 3, 5, 8)]  # Dice 1/4, 2/4 and 1/4
    row, _ = scores(lines[1] | lines[3], lines[0] | lines[2])
    assert counts(row) == (2, 0, 0) and row["lesion_dice"] == 1 / 4


def test_the_area_under_f1_is_that_over_the_dice_of_a_match():
    reference, prediction = mask(((2, 10), (2, 3), (2, 3))), mask(((6, 14), (2, 3), (2, 3)))  # Dice 0.5
    row, _ = scores(reference, prediction)
    # 1 up to a Dice of 0.5, 0 from 0.6, straight lines between thresholds of 0.1
    assert row["lesion_f1"] == 1 and row["lesion_f1_area"] == pytest.approx(0.55)
    assert scores(reference, reference)[0]["lesion_f1_area"] == pytest.approx(1)


def test_small_lesions_count_only_for_f1_while_invented_ones_lower_all_scores():
    large, small, other = cube(2, 2, 2, size=7), cube(14, 2, 2, size=2), cube(20, 12, 10, size=3)  # 343, 8, 27 mm³
    row, _ = scores(mask(large, small), mask(large), "metastases2026")
    assert [row[name] for name in SCORES] == [1, 0, 1] and counts(row) == (1, 1, 0)
    assert (row["lesion_f1_large"], row["lesion_f1_small"]) == (1, 0)
    row, _ = scores(mask(large, small), mask(large, small, other), "metastases2026")
    assert [row[name] for name in SCORES] == pytest.approx([1 / 2, 373 / 2, 1 / 2]) and counts(row) == (2, 0, 1)
    assert (row["lesion_f1_large"], row["lesion_f1_small"]) == pytest.approx((2 / 3, 2 / 3))
    for invented in ((), (other,)):  # without a large lesion there is nothing to take the mean of
        row, _ = scores(mask(small), mask(small, *invented), "metastases2026")
        assert all(math.isnan(row[name]) for name in (*SCORES, "lesion_f1_large"))
        assert row["lesion_f1_small"] == (2 / 3 if invented else 1)


@pytest.mark.parametrize(("edge", "is_large"), [(1.0, True), (0.9, False)])
def test_a_lesion_is_large_from_275_mm3(edge, is_large):
    plate = mask(((2, 13), (2, 7), (2, 7)))  # 275 voxels
    row, _ = scores(plate, plate, "metastases2026", (edge, 1.0, 1.0))
    assert math.isnan(row["lesion_f1_small"]) == is_large and math.isnan(row["lesion_dice"]) != is_large


@pytest.mark.parametrize(("corner", "found"), [((8, 8, 8), 0), ((8, 2, 2), 1)])  # 1 or 49 of 343 voxels in common
def test_a_found_lesion_of_a_dice_below_a_tenth_is_missed_in_the_f1_of_its_size(corner, found):
    row, _ = scores(mask(cube(2, 2, 2, size=7)), mask(cube(*corner, size=7)), "metastases2026")
    assert counts(row) == (1, 0, 0) and row["lesion_f1"] == 1 and row["lesion_f1_large"] == found


def test_hd95_is_over_the_borders_of_both_masks_and_nsd_within_the_smallest_spacing():
    reference = mask(((2, 3), (2, 21), (2, 3)))  # a line of 19 voxels
    prediction = reference | mask(((2, 3), (21, 22), (2, 3)))  # and one more
    row, _ = scores(reference, prediction, spacing=(3.0, 2.0, 4.0))
    assert row["lesion_hd95"] == row["hd95"] == 0 and row["lesion_nsd"] == 1
    assert row["nsd"] == pytest.approx((1 + 19 / 20) / 2)  # of a region: the same voxels
    moved, _ = scores(reference, np.roll(reference, 1, axis=1), spacing=(3.0, 2.0, 4.0))
    assert moved["hd95"] == pytest.approx(np.percentile([0] * 36 + [2] * 2, 95))
    assert moved["lesion_nsd"] == 1 and moved["nsd"] == pytest.approx(18 / 19)
    plate = mask(((2, 4), (2, 6), (2, 6)))  # 3 * 0.86 - 2 * 0.86 is more than 0.86 in float64
    assert scores(plate, np.roll(plate, 1, axis=0), spacing=(0.86, 1.0, 1.0))[0]["lesion_nsd"] == 1


def test_a_region_that_is_in_neither_map_has_no_score_and_is_left_out_of_the_mean(tmp_path):
    cohort, shape = COHORTS["brats2024_met_rc"], (30, 24, 18)
    empty, found, rows = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), []
    found[3:9, 3:9, 3:9] = 3
    for case, prediction in (("a", found), ("b", empty)):
        rows += score_case(case, prediction, prediction, MM, "goat2026", cohort)[0]
    frame = pd.DataFrame(rows).set_index(["case", "region"])
    assert frame.loc[("a", "ET"), "dice"] == 1 and math.isnan(frame.loc[("b", "ET"), "dice"])
    summary = write_scores(rows, [], str(tmp_path))
    assert summary["scores"]["ET"]["dice"]["cases"] == 1 and summary["scores"]["ET"]["dice"]["interval_low"] == 1
    assert summary["scores"]["RC"]["dice"]["mean"] is None and "lesion F1" in table(summary)
    worst = scores(mask(cube(2, 2, 2)), mask())[0]
    assert [worst[name] for name in ("dice", "hd95", "nsd", *SCORES, "lesion_f1")] == [0, 373, 0, 0, 373, 0, 0]


def test_a_metastasis_is_enhancing_necrosis_and_cavity_together():
    reference = np.zeros((30, 24, 18), np.uint8)
    reference[2:9, 2:9, 2:5], reference[2:9, 2:9, 5:9], reference[2:9, 9:12, 2:9] = 1, 3, 2
    with_cavity = reference.copy()
    with_cavity[9:12, 2:9, 2:9] = 4
    for cohort, found in (("brats2024_met", reference), ("brats2024_met_rc", with_cavity)):
        rows, lesions = score_case("a", found, found, MM, "metastases2026", COHORTS[cohort])
        lesion = next(row for row in rows if row["region"] == "lesion")
        assert lesion["reference_ml"] == pytest.approx(np.isin(found, (1, 3, 4)).sum() / 1000)
        assert counts(lesion) == (1, 0, 0) and lesion["specificity"] == lesion["accuracy"] == 1
        centre = next([row[axis] for axis in "xyz"] for row in lesions if row["region"] == "ET")
        assert centre == [5, 5, 6.5]  # of voxels 2..8, 2..8 and 5..8


def test_specificity_is_over_the_grid_and_not_over_the_box_of_the_tumours():
    reference, prediction = np.zeros((30, 24, 18), np.uint8), np.zeros((30, 24, 18), np.uint8)
    reference[4:8, 4:8, 4:8], prediction[4:8, 4:8, 4:9] = 3, 3
    rows, _ = score_case("a", reference, prediction, MM, "goat2026", COHORTS["brats2023_gli"])
    assert rows[0]["specificity"] == pytest.approx(1 - 16 / (30 * 24 * 18 - 64))
    assert rows[0]["accuracy"] == pytest.approx(1 - 16 / (30 * 24 * 18))
