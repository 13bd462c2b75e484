"""A cross-validation shows calibration and predicted Dice of cases that neither was fitted to, and doubtful labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tumour.files import save_json
from tumour.records import read_table
from tumour.scores.calibration import STEPS, histogram
from tumour.scores.quality import Judgement, Quality, Scored, fit_regions, read_rows

from tests.scores.test_quality import scored
from tools import quality as module
from tools.quality import assess, calibration_rows, judge_folds, pooled, quality_rows, reliability, second_look, text_of

STARTED = {"mirror": "no", **{f"after_treatment::{name}": {} for name in module.KINDS}}


def evidence_of(case):
    histograms = {name: counts.tolist() for name, counts in case.histograms.items()}
    slices = {name: [0, 3, 0, 0, 9] for name in histograms}
    return {"histograms": histograms, "entropy": [0, 0, 5.0, 1.0, 0], "disagreement": slices}


def crossvalidation(folder, cases):
    """The results of the folds of these cases."""
    results = [folder / f"fold{fold}" / "results" for fold in range(3)]
    for fold, place in enumerate(results):
        own = [case for case in cases if case.fold == fold]
        save_json({case.case: evidence_of(case) for case in own}, place / "evidence.json")
        rows = [
            {"case": case.case, "kind": kind, "region": name, "dice": value if kind == "region" else 0.0}
            for case in own
            for name, value in case.dice.items()
            for kind in ("region", "class")
        ]
        (place / "scores").mkdir(parents=True)
        pd.DataFrame(rows).to_csv(place / "scores" / "scores.csv", index=False)
    return results


@pytest.fixture(scope="module")
def cases():
    return [scored(number) for number in range(30)]


def test_the_tables_the_model_and_the_lists_are_written(cases, tmp_path):
    quality, tables = assess(tmp_path, crossvalidation(tmp_path, cases), STARTED)
    assert isinstance(quality, Quality) and quality.cases == 30 and quality.sha256 == ""
    assert quality.settings["mirror"] is False and quality.regions == fit_regions(by_fold_order(cases))
    errors = pd.DataFrame(tables["calibration"]).set_index("region")
    assert (errors["ACE after"].astype(float) < errors["ACE before"].astype(float) / 2).all()
    assert [row["case"] for row in read_rows(tmp_path / "segmentations")][0] in {case.case for case in cases[-8:]}
    assert len(read_table(tmp_path / "second_look.csv")) == len(read_rows(tmp_path / "segmentations")) == 30
    text = text_of(tables)
    assert "ACE before" in text and "| red among the worst fifth |" in text


def by_fold_order(cases):
    return [case for fold in range(3) for case in cases if case.fold == fold]


def test_no_case_is_scored_by_what_was_fitted_to_it(cases, monkeypatch):
    fitted = []
    calibration_rows(cases)
    monkeypatch.setattr(
        module, "Quality", type("Noted", (Quality,), {"fit": classmethod(lambda _, given, s: note(fitted, given, s))})
    )
    judged = judge_folds(cases, {case.case: evidence_of(case) for case in cases}, {})
    assert [len(given) for given in fitted] == [20] * 3 and len(judged) == 30
    for given, fold in zip(fitted, range(3), strict=True):
        assert {case.fold for case in given} == {0, 1, 2} - {fold}


def note(fitted, given, settings):
    fitted.append(given)
    return Quality.fit(given, settings)


def test_the_temperature_of_a_fold_is_fitted_to_the_others(cases, monkeypatch):
    used = []
    monkeypatch.setattr(module, "fit_temperature", lambda given: used.append(given) or 2.0)
    calibration_rows(cases)
    expected = [
        np.stack([case.histograms[name] for case in cases if case.fold != fold])
        for fold in range(3)
        for name in ("WT", "ET")
    ]
    assert all(np.array_equal(a, b) for a, b in zip(used, expected, strict=True))


def test_tables_of_several_folds_are_the_table_of_all_their_cases(cases):
    histograms = np.stack([case.histograms["WT"] for case in cases])
    parts = pooled([reliability(histograms[:7]), reliability(histograms[7:])])
    assert np.allclose(parts, reliability(histograms))


def test_the_table_says_how_well_quality_was_predicted():
    """Ten cases of Dice 0.0, 0.1 ... 0.9; of the worst two one is red and one green; the interval misses three."""
    lights = ["red", "green", "red", "yellow", "yellow", "green", "green", "green", "green", "green"]
    judged = []
    for number, light in enumerate(lights):
        dice = number / 10
        high = dice - 0.01 if number < 3 else 1.0
        predicted = dice + (0.1 if number == 9 else 0.05)
        found = Judgement(f"P{number}", light, predicted, dice - 0.2, high, {"WT": predicted})
        judged.append((Scored(f"P{number}", 0, {}, {"WT": dice}), found))
    shuffled = [judged[n] for n in (3, 0, 7, 1, 9, 2, 8, 5, 4, 6)]
    assert [row["value"] for row in quality_rows(shuffled)] == [
        "1.00",  # Spearman's correlation
        f"{(9 * 0.05 + 0.1) / 10:.3f}",
        "70%",
        "1 of 2",
        "1 of 8",
        "1 of 2",
        "5 of 8",
    ]


def test_planted_wrong_labels_come_first_in_the_list(cases):
    changed, wrong = [], {"P02", "P07", "P11", "P12"}  # of cases that the network segments well
    for case in cases:
        if case.case in wrong:
            case = type(case)(case.case, case.fold, case.histograms, {**case.dice, "ET": case.dice["ET"] / 3})
        changed.append(case)
    evidence = {case.case: evidence_of(case) for case in changed}
    rows = second_look(judge_folds(changed, evidence, {}), evidence)
    assert {row["case"] for row in rows[:4]} == wrong and all(row["region"] == "ET" for row in rows[:4])
    assert rows[0]["slices"] == "1 4" and rows[0]["difference"] > rows[4]["difference"]
    assert [row["difference"] for row in rows] == sorted((row["difference"] for row in rows), reverse=True)


def test_a_region_that_is_in_neither_mask_is_right_and_the_model_is_finite(cases, tmp_path):
    """By the rules of 2026 it has no Dice; quality.json must not contain NaN, which cannot be read again."""
    nothing = histogram(torch.full((50,), 0.1), torch.zeros(50, dtype=torch.bool))
    empty = {"P03", "P04"}
    without = [
        replace(case, histograms={**case.histograms, "ET": nothing}, dice={**case.dice, "ET": np.nan})
        if case.case in empty
        else case
        for case in cases
    ]
    quality, tables = assess(tmp_path, crossvalidation(tmp_path, without), STARTED)
    assert quality and quality.regions["ET"].empty == pytest.approx((2 + 1) / (2 + 2))
    (tmp_path / "model.pt").write_bytes(b"weights")
    quality.save(tmp_path / "model.pt")
    assert Quality.read(tmp_path / "quality.json").regions == quality.regions
    assert "nan" not in text_of(tables) + str(read_rows(tmp_path / "segmentations"))
    looks = read_table(tmp_path / "second_look.csv").set_index("case")
    assert looks["difference"].notna().all() and (looks.loc[[*empty], "region"] == "WT").all()


def test_folds_without_evidence_and_too_few_cases_have_no_model_and_the_reason_is_given(cases, tmp_path, caplog):
    results = crossvalidation(tmp_path, cases[:9])
    quality, tables = assess(tmp_path, results, STARTED)
    assert quality is None and list(tables) == ["calibration"] and not (tmp_path / "second_look.csv").exists()
    assert "There is no model of the quality: it needs 10 cases or more outside of each fold." in caplog.text
    (results[1] / "evidence.json").unlink()
    assert assess(tmp_path, results, STARTED) == (None, {}) and text_of({}) == ""
    assert f"'{results[1]}/evidence.json' is missing; delete the folder '{results[1]}/scores' and run" in caplog.text


def test_a_histogram_of_the_file_is_that_of_the_run(cases, tmp_path):
    results = crossvalidation(tmp_path, cases)
    read = module.scored_cases(results, module.evidence_in(results))
    assert read[0].histograms["WT"].shape == (2, STEPS)
    assert all(
        np.array_equal(a.histograms["ET"], b.histograms["ET"]) and a.dice == b.dice for a, b in pairs(read, cases)
    )


def pairs(read, cases):
    by_name = {case.case: case for case in cases}
    return [(case, by_name[case.case]) for case in read]
