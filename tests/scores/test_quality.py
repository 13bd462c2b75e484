"""The quality of a case is predicted from cases with a reference, for the weights that the model belongs to alone."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit
from tumour.cases.case import LeftOut
from tumour.errors import InputError
from tumour.files import save_json
from tumour.scores import quality as quality_module
from tumour.scores.calibration import histogram
from tumour.scores.quality import (
    JudgeCases,
    Quality,
    Region,
    Scored,
    fit_region,
    fit_regions,
    is_predicted,
    quality_of,
    read_rows,
    stability,
    uncertain_slices,
)

from tests.conftest import BUNDLES, succeed
from tests.members import member

SETTINGS = {"mirror": False, "after_treatment": {"threshold": {}}}


def scored(number, seed=0, sharpness=2.0):
    """A case of two regions whose logits are too large by a factor of two; later cases are blurred and worse."""
    numbers = np.random.default_rng([number, seed])
    histograms, dice = {}, {}
    for region in ("WT", "ET"):
        logits = numbers.normal(0, 6 / (1 + number / 6), 4000)
        inside = numbers.random(4000) < expit(logits)
        predicted = logits > 0
        histograms[region] = histogram(torch.from_numpy(expit(sharpness * logits)), torch.from_numpy(inside))
        dice[region] = 2 * (predicted & inside).sum() / (predicted.sum() + inside.sum())
    return Scored(f"P{number:02}", number % 3, histograms, dice)


@pytest.fixture(scope="module")
def cases():
    return [scored(number) for number in range(30)]


@pytest.fixture(scope="module")
def quality(cases):
    return Quality.fit(cases, SETTINGS)


def test_the_dice_of_new_cases_is_predicted_inside_its_interval(quality):
    new = [scored(number, seed=1) for number in range(30)]
    judged = [quality.judge(case.case, case.histograms) for case in new]
    assert np.mean([abs(found.dice - case.mean) for found, case in zip(judged, new, strict=True)]) < 0.03
    assert np.mean([found.low <= case.mean <= found.high for found, case in zip(judged, new, strict=True)]) > 0.8


def test_the_stability_is_the_dice_of_the_region_at_two_thresholds():
    p = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 0.9, 0.95])
    core, rim = p > 0.75, p > 0.25
    found = histogram(p)
    assert stability(found) == 2 * int((core & rim).sum()) / int(core.sum() + rim.sum()) == 2 * 3 / 9
    assert is_predicted(found) and not is_predicted(histogram(p[:4])) and stability(histogram(p[:2])) == 0


def test_a_model_of_many_cases_follows_their_dice_and_one_of_few_the_stability(cases):
    halved = [case.dice["WT"] / 2 for case in cases]
    many = fit_region([case.histograms["WT"] for case in cases], halved)
    few = fit_region([cases[0].histograms["WT"]], halved[:1])
    predict = [model.predict(cases[0].histograms["WT"]) for model in (few, many)]
    assert abs(predict[1] - halved[0]) < 0.1
    assert few.slope > many.slope and abs(few.slope - 1) < 0.5


def test_a_region_that_is_not_predicted_has_the_mean_dice_of_such_cases_and_not_less_than_a_guess(cases):
    empty = histogram(torch.full((50,), 0.1), torch.zeros(50, dtype=torch.bool))
    none = fit_region([cases[0].histograms["WT"]], [0.9])
    some = fit_region([cases[0].histograms["WT"], empty, empty, empty], [0.9, 1.0, 1.0, 0.0])
    assert none.predict(empty) == 0.5 and some.predict(empty) == pytest.approx(3 / 5)


def test_red_catches_the_worst_and_spares_nine_of_ten_others_and_no_poor_case_is_green(cases, quality):
    order = sorted(cases, key=lambda case: case.mean)
    lights = [quality.judge(case.case, case.histograms).light for case in order]
    assert quality.poor == pytest.approx(order[5].mean)  # the best of the worst fifth of 30
    assert lights[:6].count("red") >= 5 and lights[6:].count("red") <= 2
    assert "green" not in lights[:6] and lights[6:].count("green") > 10
    noted = quality.judge("P1", order[-1].histograms, note="unlike the cases used for training")
    assert lights[-1] == "green" and noted.light == "yellow" and noted.dice > quality.poor


@pytest.mark.parametrize(
    ("worst", "red"),
    [
        ((0.1, 0.2, 0.55, 0.6), 0.3),  # one of the 16 others may be red, so two of the worst are not
        ((0.1, 0.15, 0.2, 0.25), 0.25),  # all of the worst are red, so no other needs to be
    ],
)
def test_red_reaches_as_far_as_one_in_ten_of_the_other_cases_and_not_beyond_the_worst(worst, red, cases, monkeypatch):
    true = {number: number / 20 for number in range(20)}  # the first four are the worst fifth
    predicted = iter([*worst, 0.3, 0.4, *(0.7 + number / 100 for number in range(14))])
    monkeypatch.setattr(quality_module, "mean_of", lambda *_: next(predicted))
    given = [replace(cases[number], dice={"WT": dice, "ET": dice}) for number, dice in true.items()]
    assert Quality.fit(given, SETTINGS).red == red


@pytest.mark.parametrize(("poor", "light"), [(0.55, "green"), (0.65, "yellow")])
def test_the_interval_is_a_share_of_what_a_prediction_lacks_and_green_is_above_the_poor_with_all_of_it(poor, light):
    found = Quality({"WT": Region(0.8, 0.0, 0.5)}, -1.0, 0.5, 0.3, poor, 20, SETTINGS).judge(
        "P1", {"WT": histogram(torch.full((50,), 0.9))}
    )
    assert (found.dice, found.low, found.high) == pytest.approx((0.8, 0.8 - 0.2, 0.8 + 0.1))
    assert found.light == light


def test_the_models_behind_interval_and_thresholds_do_not_use_the_case_that_they_predict(cases, monkeypatch):
    used = []
    monkeypatch.setattr(
        quality_module, "fit_regions", lambda given: used.append({case.case for case in given}) or fit_regions(given)
    )
    Quality.fit(cases, SETTINGS)
    everyone = {case.case for case in cases}
    assert [everyone - each for each in used] == [{case.case} for case in cases] + [set()]


def test_too_few_cases_give_no_model(cases):
    with pytest.raises(InputError, match="needs 10 cases or more; there are 9"):
        Quality.fit(cases[:9], SETTINGS)


@pytest.fixture
def weights(tmp_path, quality):
    """A folder with a checkpoint and the model of its quality."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    quality.save(path)
    return path


def test_a_model_is_read_as_it_was_written_for_its_own_weights_and_settings(weights, quality, caplog):
    found = quality_of(str(weights), **SETTINGS)
    assert found.regions == quality.regions and (found.red, found.poor) == (quality.red, quality.poor)
    assert not caplog.records
    assert quality_of(str(weights), **{**SETTINGS, "mirror": True}) is None
    assert "is valid for mirror = False and is not used" in caplog.text
    weights.write_bytes(b"others")
    assert quality_of(str(weights), **SETTINGS) is None
    assert "belongs to other weights and is not used" in caplog.text
    weights.with_name("quality.json").unlink()
    assert quality_of(str(weights), **SETTINGS) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "not JSON",
        lambda content: json.dumps([content]),
        lambda content: json.dumps({**content, "red": "$(exit())"}),
        lambda content: json.dumps({**content, "low": float("nan")}),
        lambda content: json.dumps({**content, "poor": True}),
        lambda content: json.dumps({**content, "regions": {}}),
        lambda content: json.dumps({**content, "regions": {"WT": {"slope": 1}}}),
        lambda content: json.dumps({**content, "settings": "mirror"}),
        lambda content: json.dumps({name: value for name, value in content.items() if name != "sha256"}),
    ],
)
def test_a_damaged_model_is_refused_with_its_path(damage, weights):
    path = weights.with_name("quality.json")
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(InputError, match=r"quality.json' (is not|has no) .*; restore or delete it"):
        quality_of(str(weights), **SETTINGS)


def test_the_slices_to_look_at_are_the_most_uncertain_ones_apart_from_each_other():
    entropy = [0, 1, 5, 9, 8, 1, 0, 0, 0, 3, 2]
    assert uncertain_slices(entropy, most=2) == [3, 9]
    assert uncertain_slices(entropy, most=5) == [0 + 3, 9]
    assert uncertain_slices([0, 0]) == []


def judge(handler, *cases):
    """Run the handler on cases, as an evaluator does."""
    handler.start(None)
    for case in cases:
        histograms = {name: counts.tolist() for name, counts in case.histograms.items()}
        output = {"evidence": {"histograms": histograms, "entropy": [0.0, 7.5, 0.1]}}
        handler.judge(SimpleNamespace(state=SimpleNamespace(batch=[{"case": case.case}], output=[output])))


def test_quality_csv_has_the_worst_case_first_with_its_interval_slices_and_notes(tmp_path, cases, quality):
    notes = [LeftOut("P00", "odd"), LeftOut("P00", "small"), LeftOut("P29", "other")]
    handler = JudgeCases(str(tmp_path), quality, SimpleNamespace(notes=notes))
    judge(handler, cases[0], cases[29], cases[1])
    handler.write(None)
    rows = read_rows(tmp_path)
    assert [row["case"] for row in rows] == ["P29", "P00", "P01"]
    assert [row["light"] for row in rows] == ["red", "yellow", "green"]
    assert rows[1]["note"] == "odd; small" and rows[2]["note"] == "" and rows[1]["slices"] == "1"
    assert all(row["low"] <= row["dice"] <= row["high"] for row in rows)
    assert rows[0]["dice"] == pytest.approx((rows[0]["dice_WT"] + rows[0]["dice_ET"]) / 2, abs=0.001)


class Finished(dict):
    """What a run keeps for finished cases."""

    def add(self, **results):
        self.added = results


def test_a_run_that_continues_has_the_rows_of_finished_cases(tmp_path, cases, quality):
    first = JudgeCases(str(tmp_path), quality, SimpleNamespace(notes=[]), Finished())
    judge(first, cases[0])  # then it was killed
    second = JudgeCases(str(tmp_path), quality, SimpleNamespace(notes=[]), Finished(P00=first.finished.added))
    judge(second, cases[2])
    second.write(None)
    assert sorted(row["case"] for row in read_rows(tmp_path)) == ["P00", "P02"]


def test_a_prediction_stays_between_0_and_1():
    sure = histogram(torch.full((50,), 0.999))
    assert Region(0.5, 1.0, 0.5).predict(sure) == 1 and Region(-5.0, 1.0, 0.5).predict(sure) == 0


@pytest.mark.parametrize("run_id", ["inferring", "evaluating"])
def test_a_run_with_a_model_next_to_the_weights_writes_quality_csv(run_id, quality, patients, tmp_path):
    models, table = member(tmp_path / "models", BUNDLES[0]), tmp_path / "results" / "segmentations" / "quality.csv"
    of_each = dict.fromkeys(("TC", "WT", "ET"), quality.regions["WT"])
    three = replace(quality, regions=of_each, settings={"mirror": False})
    three.save(models / "model.pt")
    settings = json.loads((models / "settings.json").read_text())
    save_json({**settings, "seen": {"brain volume, ml": [900, 1000]}}, models / "settings.json")  # of no synthetic one
    options = {"test_share": 1.0} if run_id == "evaluating" else {}
    printed = succeed(run_id, BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **options)
    rows = read_rows(table.parent)
    assert len(rows) == 6 and all("unlike the cases used for training: brain volume" in row["note"] for row in rows)
    assert {row["light"] for row in rows} <= {"red", "yellow"} and all(row["slices"] for row in rows)
    assert "predicted quality: " in printed and "brain volume, ml, " in printed
    others = {"evaluate::checkpoint": member(tmp_path / "other", BUNDLES[0]) / "model.pt"}
    if run_id == "inferring":
        others = {"ckpt_dir": others["evaluate::checkpoint"].parent}
    succeed(run_id, BUNDLES[0], tmp_path, "brats2021", patients("brats2021"), **options, **others)
    assert not table.exists()  # it judged the label maps that other weights have replaced
