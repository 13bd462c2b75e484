"""The after-treatment of probability maps follows its settings, and fitting finds settings that improve the scores."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tumour.errors import InputError
from tumour.maps import fitting
from tumour.maps.aftertreatment import DropSmallPiecesd, EmptySmallRegionsd, ThresholdRegionsd, treatment_of
from tumour.maps.fitting import FitAfterTreatment
from tumour.maps.regions import ToLabelMapd

from tests.cohorts import REGIONS, glioma
from tests.masks import cube, mask

TC, WT, ET = range(3)
HALF = torch.tensor([0.5, 1, 1, 1]).diag()  # voxels of half a mm³


def regions_of(tc=(), wt=(), et=(), affine=None):
    masks = np.stack([mask(*boxes) for boxes in (tc, wt, et)]).astype(np.uint8)
    return MetaTensor(masks, affine=torch.eye(4) if affine is None else affine)


def apply(step, regions, values):
    return step("pred", REGIONS, values)({"pred": regions, "case": "B_1"})["pred"]


def test_each_region_has_its_own_threshold_with_one_half_as_default():
    probabilities = torch.tensor([0.3, 0.5, 0.7]).expand(3, 1, 1, 3)
    treated = apply(ThresholdRegionsd, probabilities, {"ET": 0.7, "TC": 0.2})
    assert treated.flatten(1).tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_and_the_case_is_named(value):
    with pytest.raises(InputError, match="B_1: the network's output is not finite"):
        apply(ThresholdRegionsd, torch.tensor([0.3, value, 0.7]).expand(3, 1, 1, 3), {})


@pytest.mark.parametrize("step", [DropSmallPiecesd, EmptySmallRegionsd])
def test_without_values_a_step_changes_nothing(step):
    regions = regions_of(tc=[cube(3, 3, 3)], wt=[cube(3, 3, 3, size=5)], et=[cube(12, 12, 12, size=1)])
    assert torch.equal(apply(step, regions, {}), regions)
    assert torch.equal(apply(step, regions, {"TC": 0}), regions)


@pytest.mark.parametrize(("least", "left"), [(27, 27), (27.5, 0)])
@pytest.mark.parametrize("step", [DropSmallPiecesd, EmptySmallRegionsd])
def test_pieces_and_regions_smaller_than_the_given_mm3_are_dropped(step, least, left):
    regions = regions_of(et=[cube(3, 3, 3)])
    assert apply(step, regions, {"ET": least})[ET].sum() == left
    regions = regions_of(et=[cube(3, 3, 3)], affine=HALF)
    assert apply(step, regions, {"ET": least / 2})[ET].sum() == left
    assert regions[ET].sum() == 27  # the input is unchanged


def test_pieces_are_measured_one_by_one_and_regions_in_total():
    regions = regions_of(et=[cube(3, 3, 3), cube(12, 12, 12, size=2)])
    assert apply(DropSmallPiecesd, regions, {"ET": 10})[ET].sum() == 27
    assert apply(EmptySmallRegionsd, regions, {"ET": 35})[ET].sum() == 35
    touching = regions_of(et=[cube(3, 3, 3), cube(6, 6, 6, size=2)])  # at one corner
    assert apply(DropSmallPiecesd, touching, {"ET": 30})[ET].sum() == 35


@pytest.mark.parametrize("step", [DropSmallPiecesd, EmptySmallRegionsd])
def test_voxels_dropped_from_a_region_are_dropped_from_regions_inside_it_and_stay_in_those_around_it(step):
    regions = regions_of(tc=[cube(4, 4, 4, size=3)], wt=[cube(3, 3, 3, size=5)], et=[cube(5, 5, 5, size=1)])
    label = ToLabelMapd("pred", glioma())
    counts = [
        np.bincount(label({"pred": apply(step, regions, values)})["pred"].numpy().ravel(), minlength=5).tolist()[1:]
        for values in ({}, {"ET": 2}, {"TC": 28}, {"WT": 126})
    ]
    assert counts == [[26, 98, 0, 1], [27, 98, 0, 0], [0, 125, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("values", "message"), [({"AT": 1}, "region AT"), ({"ET": -1}, "-1"), ({"ET": "many"}, "'many'")]
)
def test_a_wrong_value_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        DropSmallPiecesd("pred", REGIONS, values)


def test_values_next_to_weights_are_used_kind_by_kind_and_named_in_the_log(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)  # no folder is not this one
    assert treatment_of("smallest_piece", str(tmp_path)) == {}
    (tmp_path / "after_treatment.json").write_text('{"smallest_piece": {"WT": 2500}, "fitted": {"cases": 3}}')
    with caplog.at_level(logging.INFO, "bundle"):
        assert treatment_of("smallest_piece", "") == treatment_of("threshold", str(tmp_path)) == {}
        assert not caplog.records
        assert treatment_of("smallest_piece", str(tmp_path)) == {"WT": 2500}
    assert "smallest_piece {'WT': 2500}" in caplog.text


# Fitting ------------------------------------------------------------------------------------------------------------
def fit(path, cases, slices=1.0):
    """Fit on (reference label map, probabilities) with voxels of 1 x 1 x `slices` mm."""
    handler = FitAfterTreatment(str(path), glioma())
    handler.start(None)
    for label, probabilities in cases:
        affine = torch.tensor([1.0, 1, slices, 1]).diag()
        item = {"case": "B_1", "reference": MetaTensor(np.array([0, 1, 2, 4], np.uint8)[label][None], affine=affine)}
        handler.keep(
            SimpleNamespace(state=SimpleNamespace(batch=[item], output=[{"pred": torch.as_tensor(probabilities)}]))
        )
    handler.fit(None)
    return json.loads(path.read_text())


def tumour(enhancing=True):
    label = np.zeros((30, 24, 18), np.uint8)
    label[mask(cube(4, 4, 4, size=10))] = 2
    label[mask(cube(6, 6, 6, size=5))] = 1
    if enhancing:
        label[mask(cube(7, 7, 7))] = 3
    return label


def probabilities_of(label, sure=0.9):
    return np.stack([np.isin(label, values) for values in ((1, 3), (1, 2, 3), (3,))]).astype(np.float32) * sure


def test_a_network_that_predicts_too_little_gets_a_lower_threshold(tmp_path):
    found = fit(tmp_path / "models" / "fitted.json", [(tumour(), probabilities_of(tumour(), sure=0.35))] * 2)
    assert found["threshold"] == dict.fromkeys(REGIONS, 0.3)
    assert found["fitted"]["cases"] == 2
    assert found["fitted"]["ET"] == {"dice_before": 0, "dice_after": 1}


@pytest.mark.parametrize(("slices", "smallest"), [(1.0, 10), (1.5, 25)])
def test_enhancing_specks_in_patients_without_any_are_dropped(slices, smallest, tmp_path):
    speck = probabilities_of(tumour(enhancing=False))
    speck[ET][mask(cube(7, 7, 7, size=2))] = 0.9  # 8 or 12 mm³
    cases = [(tumour(), probabilities_of(tumour())), (tumour(enhancing=False), speck)]
    found = fit(tmp_path / "fitted.json", cases, slices)
    assert found["smallest_piece"] == {"ET": smallest} and found["smallest_region"] == {"ET": 0}
    assert found["fitted"]["ET"] == {"dice_before": 0.5, "dice_after": 1}


def test_settings_that_bring_no_gain_are_not_used(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "bundle"):
        found = fit(tmp_path / "fitted.json", [(tumour(), probabilities_of(tumour()))])
    assert {found.pop(name) == {} for name in ("threshold", "smallest_piece", "smallest_region")} == {True}
    assert "--after_treatment" in caplog.text


def test_a_step_that_helps_one_region_but_harms_the_label_map_is_not_used(tmp_path):
    """Every voxel of core is also certain enhancing tumour, so dropping core cannot help: it is painted anyway."""
    label = np.where(tumour() == 3, 3, 0).astype(np.uint8)
    found = fit(tmp_path / "fitted.json", [(label, np.where(label > 0, 0.9, 0.1)[None].repeat(3, 0))])
    assert found["fitted"]["TC"]["dice_after"] == 1 and found["threshold"] == {}


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_the_search_gives_a_setting_the_same_score_as_the_steps_themselves(threshold, monkeypatch):
    random = np.random.default_rng(0)
    label = random.integers(0, 4, (12, 11, 10), np.uint8)
    kept = fitting.FittingCase(
        torch.as_tensor(random.random((3, 12, 11, 10))).half(),
        np.stack([np.isin(label, values) for values in ((1, 3), (1, 2, 3), (3,))]),
        voxel=2.0,
    )
    monkeypatch.setattr(fitting, "THRESHOLDS", (threshold,))
    monkeypatch.setattr(fitting, "SMALLEST_PIECE", (6,))
    monkeypatch.setattr(fitting, "SMALLEST_REGION", (0,))
    scored = []
    monkeypatch.setattr(fitting, "dice", lambda *a, own=fitting.dice: scored.append(own(*a)) or scored[-1])
    fitting.best_of_region([kept], ET)
    pred = MetaTensor(kept.probabilities.float(), affine=torch.tensor([2.0, 1, 1, 1]).diag())
    treated = apply(DropSmallPiecesd, apply(ThresholdRegionsd, pred, {"ET": threshold}), {"ET": 6})[ET].numpy() > 0
    expected = 2 * (treated & kept.reference[ET]).sum() / (treated.sum() + kept.reference[ET].sum())
    assert scored[0].item() == pytest.approx(expected)


def test_fitting_without_cases_is_refused(tmp_path):
    with pytest.raises(InputError, match="No case can be used for fitting"):
        fit(tmp_path / "fitted.json", [])
