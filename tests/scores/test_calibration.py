"""Temperature, calibration error and expected Dice follow from the histogram of a case as from its voxels."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.special import expit, logit
from tumour.errors import CaseError
from tumour.scores.calibration import (
    LOGITS,
    STEPS,
    Measured,
    axial_axis,
    calibration_error,
    entropy,
    fit_temperature,
    histogram,
    reliability,
)

from tests.cohorts import COHORTS

COHORT = COHORTS["brats2021"]


def voxels(number, temperature, seed=0):
    """Probabilities of a network whose logits are too large by a factor, and the reference."""
    numbers = np.random.default_rng(seed)
    logits = numbers.normal(-1, 2, number)
    return torch.from_numpy(expit(logits * temperature)), torch.from_numpy(numbers.random(number) < expit(logits))


def test_a_voxel_is_counted_in_the_bin_of_its_logit_and_its_reference():
    p = torch.tensor([0.0, 0.0, 0.2, 0.5, 0.4999, 1.0, 0.9])
    inside = torch.tensor([False, True, False, True, False, True, False])
    found = histogram(p, inside)
    assert found.shape == (2, STEPS) and found.sum() == 6  # the first is outside the head
    assert found[1, 0] == 1 and found[1, -1] == 1
    assert np.abs(LOGITS[found[0] > 0] - np.sort(logit([0.2, 0.4999, 0.9]))).max() <= 0.05 + 1e-9
    assert found[:, LOGITS > 0].sum() == (p >= 0.5).sum()
    assert np.array_equal(histogram(p)[0, 1:], found.sum(axis=0)[1:])


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_factor_by_which_the_logits_are_too_large(factor):
    found = histogram(*voxels(200_000, factor))
    assert fit_temperature(found) == pytest.approx(factor, rel=0.06)


def test_the_right_temperature_removes_the_calibration_error():
    found = histogram(*voxels(400_000, 3.0))
    before, after = (calibration_error(reliability(found, temperature)) for temperature in (1.0, 3.0))
    assert before > 0.1 and after < 0.01


def test_the_calibration_error_is_the_mean_over_the_bins_that_have_voxels():
    counts = np.zeros((2, STEPS), int)
    low, high = (int(np.abs(LOGITS - logit(p)).argmin()) for p in (0.12, 0.88))
    counts[:, low], counts[:, high] = (900_000, 100_000), (10, 0)  # one bin is right, one is wrong
    p = expit(LOGITS[[low, high]])
    expected = (abs(p[0] - 0.1) + p[1]) / 2
    assert calibration_error(reliability(counts)) == pytest.approx(expected)


def test_entropy_is_one_bit_at_a_half_and_zero_where_it_is_certain():
    assert entropy(torch.tensor([0.0, 0.5, 1.0, 0.25])).tolist() == pytest.approx([0, 1, 0, 0.8113], abs=1e-4)


def test_the_axial_axis_is_that_from_foot_to_head_however_the_scan_is_stored():
    assert axial_axis(np.diag([1, 1, 5, 1])) == 2
    turned = np.array([[0, 0, -1, 0], [-0.3, 1, 0, 0], [-0.9, 0.3, 0, 0], [0, 0, 0, 1]])
    assert axial_axis(turned) == 0


def evidence(with_reference):
    probabilities = torch.full((3, 6, 5, 4), 0.01)
    probabilities[1, 2:4, 2:4, 1] = 0.5  # WT, in slice 1
    probabilities[1, 0, 0, 3] = 0.95
    item = {"case": "P1", "image": MetaTensor(torch.zeros(1, 6, 5, 4), meta={"original_affine": np.eye(4)})}
    if with_reference:
        item["reference"] = torch.zeros(1, 6, 5, 4)
        item["reference"][0, 5, 4, 2] = 2  # oedema where the network is sure that there is none
        item["reference"][0, 2, 2, 1] = 2  # and where it is not sure
    return Measured("pred", COHORT)({**item, "pred": probabilities})["evidence"]


def test_probabilities_that_are_not_finite_are_refused_with_the_case():
    with pytest.raises(CaseError, match="c1: the network's output is not finite"):
        Measured("pred", COHORT)({"case": "c1", "pred": torch.full((3, 6, 5, 4), torch.nan)})


def test_sums_leave_the_device_before_they_become_float64_which_apples_gpus_lack(monkeypatch):
    double, here = torch.Tensor.double, []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: here.append(tensor) or tensor)
    monkeypatch.setattr(torch.Tensor, "double", lambda tensor: double(here[-1] if tensor is here[-1] else None))
    assert evidence(with_reference=True)


def test_the_entropy_of_a_slice_is_that_of_the_least_certain_region_at_each_voxel():
    probabilities = torch.rand(3, 6, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    item = {"case": "c1", "image": MetaTensor(torch.zeros(4, 6, 5, 4)), "pred": probabilities}
    item["image"].meta["original_affine"] = np.eye(4)
    p = probabilities.numpy()
    bits = (-(p * np.log2(p)) - (1 - p) * np.log2(1 - p)).max(axis=0)
    assert Measured("pred", COHORT)(item)["evidence"]["entropy"] == bits.sum(axis=(0, 1)).round(1).tolist()


def test_the_evidence_of_a_case_has_its_uncertain_and_its_disputed_slices():
    found = evidence(with_reference=True)
    assert list(COHORT.regions) == ["TC", "WT", "ET"] == list(found["histograms"])
    assert np.argmax(found["entropy"]) == 1 and len(found["entropy"]) == 4
    assert found["disagreement"] == {"TC": [0, 0, 0, 0], "WT": [0, 0, 1, 1], "ET": [0, 0, 0, 0]}
    counts = np.array(found["histograms"]["WT"])
    assert counts.shape == (2, STEPS) and counts[1].sum() == 2 and counts.sum() == 120
    alone = evidence(with_reference=False)
    assert "disagreement" not in alone and alone["entropy"] == found["entropy"]
    assert alone["histograms"]["WT"] == [counts.sum(axis=0).tolist()]
