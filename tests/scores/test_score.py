"""Any label maps are scored, a bad one gives one clear sentence, and files are written completely or not at all."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor
from tumour.cases.find import find_cases
from tumour.checks.case import CaseCheck
from tumour.checks.usable import examine
from tumour.errors import InputError
from tumour.scores.challenges import score_case
from tumour.scores.evaluation import ScoreCases
from tumour.scores.tables import mean_interval, mean_text, table, write_scores

from tests.cohorts import COHORTS, FOUR, glioma
from tools import score as module
from tools.command_line import command_line
from tools.patients.synthetic import make_patients
from tools.score import _score_files, label_files, score

SHAPE = (12, 11, 10)
CASES = ["BraTS-MET-00001-000", "BraTS-MET-00002-000", "BraTS-MET-00003-000"]
FILES = ["lesions.csv", "scores.csv", "summary.json"]


def label_map(shift=0, enhancing=3):
    """Classes of a small tumour: oedema around enhancing around necrotic."""
    out = np.zeros(SHAPE, np.uint8)
    out[2 + shift : 9 + shift, 2:9, 2:8] = 2
    out[3 + shift : 8 + shift, 3:8, 3:7] = enhancing
    out[4 + shift : 7 + shift, 4:7, 4:6] = 1
    return out


def save(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 1, 1]) if affine is None else affine), path)
    return path


@pytest.fixture
def folders(tmp_path):
    """References in case folders next to a scan, and perfect predictions named only by the case."""
    for case in CASES:
        save(tmp_path / "reference" / case / f"{case}-seg.nii.gz", label_map())
        save(tmp_path / "reference" / case / f"{case}-t1c.nii.gz", np.ones(SHAPE, np.float32))
        save(tmp_path / "prediction" / f"{case}.nii.gz", label_map())
    return tmp_path


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """A pool takes seconds to start; the last test has a real one."""

    class Serial:
        def __init__(self, workers, initializer):
            self.map = map

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(module, "ProcessPoolExecutor", Serial)


def run(folders, cohort="brats2024_met", **options):
    text = score(str(folders / "reference"), str(folders / "prediction"), cohort, str(folders / "out"), **options)
    return text, pd.read_csv(folders / "out" / "scores.csv"), json.loads((folders / "out" / "summary.json").read_text())


def test_perfect_predictions_score_one_and_the_challenge_fits_the_cohort(folders):
    text, scores, summary = run(folders)
    assert sorted(os.listdir(folders / "out")) == FILES
    assert list(scores["case"].unique()) == CASES and len(scores) == 3 * 6
    assert (scores["dice"] == 1).all() and (scores["hd95"] == 0).all() and (scores["lesion_dice"] == 1).all()
    assert summary["challenge"] == "metastases2024" and summary["missing"] == []
    assert len(pd.read_csv(folders / "out" / "lesions.csv")) == 3 * 6
    assert "1.000 ± 0.000" in text and "WT" in text and "lesion-wise Dice" in text


def test_predictions_are_found_flat_or_in_case_folders_with_or_without_suffix(folders):
    flat = folders / "prediction"
    (flat / CASES[1]).mkdir()
    (flat / f"{CASES[1]}.nii.gz").rename(flat / CASES[1] / f"{CASES[1]}-seg.nii.gz")
    (flat / f"{CASES[2]}.nii.gz").unlink()
    save(flat / f"{CASES[2]}.nii", label_map())
    save(folders / "reference" / CASES[0] / f"._{CASES[0]}-seg.nii.gz", label_map())  # a hidden file of macOS
    assert (run(folders)[1]["dice"] == 1).all()


def test_a_case_may_be_called_like_a_label(tmp_path):
    for case in ("x_seg", "y"):
        save(tmp_path / "reference" / case / f"{case}_seg.nii.gz", label_map(enhancing=4))
        save(tmp_path / "prediction" / f"{case}.nii.gz", label_map(enhancing=4))
    text, scores, summary = run(tmp_path, "brats2021")
    assert (scores["dice"] == 1).all() and not summary["missing"] and "no case" not in text


def test_references_may_be_named_like_the_predictions_and_one_without_a_prediction_counts(folders):
    for name in "abc":
        save(folders / "labels" / f"{name}.nii.gz", label_map())
    save(folders / "predicted" / "b.nii.gz", label_map())
    text = score(*(str(folders / name) for name in ("labels", "predicted")), "brats2024_met", str(folders / "out"))
    dice = pd.read_csv(folders / "out" / "scores.csv").groupby("case")["dice"].mean()
    assert dice.to_dict() == {"a": 0, "b": 1, "c": 0} and "scored as empty: a, c." in text


@pytest.mark.parametrize(
    ("cohort", "name", "values"),
    [("brats2021", "BraTS2021_00000_seg", (1, 2, 4)), ("msd", "labelsTr/BRATS_001", (2, 1, 3))],
)
def test_label_values_are_those_of_the_cohort(tmp_path, cohort, name, values):
    stored = np.array([0, *values], np.uint8)
    save(tmp_path / "reference" / f"{name}.nii.gz", stored[label_map()])
    save(tmp_path / "prediction" / f"{name.split('/')[-1]}.nii.gz", stored[label_map(shift=1)])
    _, scores, summary = run(tmp_path, cohort)
    expected, _ = score_case("", label_map(), label_map(shift=1), (1, 1, 1), "legacy", glioma())
    assert scores["dice"].tolist() == pytest.approx([row["dice"] for row in expected])
    assert summary["challenge"] == "legacy"


@pytest.mark.parametrize("name", COHORTS)
def test_patients_named_as_in_a_cohort_are_found_checked_and_scored_by_its_rules(name, tmp_path):
    make_patients(tmp_path / "data", cases=1, size=32, cohort=name)
    cohort = COHORTS[name]
    found = find_cases(str(tmp_path / "data"), cohort, FOUR, COHORTS)
    (case,) = found.complete
    (finding,) = examine([case], CaseCheck(cohort, COHORTS, FOUR), workers=1)
    assert not found.left_out and finding.status == "good", finding
    labels = label_files(str(tmp_path / "data"), cohort, bare=False)
    assert [*labels] == [case.name]
    rows, _ = _score_files(case.name, labels[case.name], labels[case.name], cohort, cohort.challenge)
    scored = {row["region"]: row["dice"] for row in rows if row["kind"] == "region"}
    assert scored.keys() == cohort.regions.keys() and set(scored.values()) == {1}


def test_a_missing_prediction_counts_as_empty_and_is_listed(folders):
    (folders / "prediction" / f"{CASES[1]}.nii.gz").unlink()
    text, scores, summary = run(folders, challenge="glioma2023")
    mine = scores[scores["case"] == CASES[1]]
    assert (mine["dice"] == 0).all() and (mine["hd95"] == 374).all() and (mine["predicted_ml"] == 0).all()
    assert summary["missing"] == [CASES[1]] and CASES[1] in text
    assert summary["scores"]["WT"]["dice"]["mean"] == pytest.approx(2 / 3)


def test_distances_follow_the_spacing_of_the_file(folders):
    for case in CASES:
        save(folders / "reference" / case / f"{case}-seg.nii.gz", label_map(), np.diag([2.0, 3, 4, 1]))
        save(folders / "prediction" / f"{case}.nii.gz", label_map(shift=1), np.diag([2.0, 3, 4, 1]))
    scores = run(folders)[1]
    expected, _ = score_case("", label_map(), label_map(shift=1), (2, 3, 4), "metastases2024", glioma())
    assert scores["hd95"].tolist() == pytest.approx([row["hd95"] for row in expected] * 3)
    assert scores["reference_ml"][1] == pytest.approx(np.count_nonzero(label_map()) * 0.024)


def other_shape(path):
    save(path, label_map()[:-1])
    return "(11, 11, 10)"


def other_affine(path):
    save(path, label_map(), np.diag([-1.0, 1, 1, 1]))
    return "orientation"


def unknown_label(path):
    save(path, label_map(enhancing=7))
    return "[7]"


def fractions(path):
    save(path, label_map().astype(np.float32) / 2)
    return "0.5"


def not_finite(path):
    save(path, np.where(label_map() == 1, np.nan, label_map()).astype(np.float32))
    return "not finite"


def four_axes(path):
    save(path, np.stack([label_map()] * 3, axis=-1))
    return "(12, 11, 10, 3)"


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "damaged"


@pytest.mark.parametrize("spoil", [other_shape, other_affine, unknown_label, fractions, not_finite, four_axes, half])
def test_a_bad_file_gives_one_clear_sentence_and_nothing_is_written(folders, spoil, capsys):
    path = folders / "prediction" / f"{CASES[1]}.nii.gz"
    told = spoil(path)
    (folders / "out").mkdir()
    (folders / "out" / "scores.csv").write_text("earlier")
    arguments = {"reference": "reference", "prediction": "prediction", "output": "out"}
    arguments = [f"--{name}={folders / value}" for name, value in arguments.items()]
    with pytest.raises(SystemExit) as stopped:
        command_line(score, "tools score", [*arguments, "--cohort=brats2024_met"])
    error = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert stopped.value.code == 1 and error.startswith(f"error: {CASES[1]}: ") and error.endswith(".")
    assert str(path) in error and told in error
    assert os.listdir(folders / "out") == ["scores.csv"] and (folders / "out" / "scores.csv").read_text() == "earlier"


def test_label_maps_with_several_volumes_are_refused(folders):
    for path in (
        folders / "prediction" / f"{CASES[0]}.nii.gz",
        folders / "reference" / CASES[0] / f"{CASES[0]}-seg.nii.gz",
    ):
        four_axes(path)
    with pytest.raises(InputError, match="three axes"):
        run(folders)


def test_all_bad_files_are_reported_at_once(folders):
    other_shape(folders / "prediction" / f"{CASES[0]}.nii.gz")
    unknown_label(folders / "prediction" / f"{CASES[2]}.nii.gz")
    with pytest.raises(InputError) as error:
        run(folders)
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [CASES[0], CASES[2]]


def test_empty_folders_duplicates_and_unknown_names_are_refused(folders):
    (folders / "empty").mkdir()
    there, out = [str(folders / name) for name in ("reference", "prediction")], str(folders / "out")
    for arguments, told in [
        ((str(folders / "empty"), there[1], "brats2024_met"), "No label map of brats2024_met"),
        ((there[0], str(folders / "empty"), "brats2024_met"), "No label map below"),
        ((there[0], there[0], "brats2024_met"), "both"),
        ((there[0], str(folders / "nowhere"), "brats2024_met"), "is not a folder"),
        ((*there, "brats1999"), "brats1999"),
        ((*there, "brats2021"), r"No label map of brats2021 \(<case>_seg.nii.gz\), and none named like a prediction"),
        ((*there, "brats2024_met", out, "glioma1999"), "glioma1999"),
    ]:
        with pytest.raises(InputError, match=told):
            score(*arguments, **({} if len(arguments) > 3 else {"output": out}))
    save(folders / "prediction" / f"{CASES[0]}-seg.nii.gz", label_map())
    with pytest.raises(InputError, match=f"{CASES[0]}: .* both"):
        run(folders)
    assert not (folders / "out").exists()


def rows_of(dice):
    return [
        {"case": f"{i}", "kind": "region", "region": "WT", "dice": each, "hd95": 1.0} for i, each in enumerate(dice)
    ]


def test_the_summary_has_the_statistics_of_the_cases(tmp_path):
    dice = [0.1, 0.5, 0.6, 0.8]
    summary = write_scores(rows_of(dice), [], str(tmp_path / "new" / "out"), challenge="legacy")
    told = summary["scores"]["WT"]["dice"]
    assert told["cases"] == 4 and told["mean"] == pytest.approx(0.5) and told["median"] == pytest.approx(0.55)
    assert told["sd"] == pytest.approx(np.std(dice, ddof=1))
    assert (told["lower_quartile"], told["upper_quartile"]) == pytest.approx((0.4, 0.65))
    assert 0.1 <= told["interval_low"] < 0.5 < told["interval_high"] <= 0.8
    assert json.loads((tmp_path / "new" / "out" / "summary.json").read_text()) == summary
    assert table(summary).split() == ["Dice", "HD95", "mm", "WT", "0.500", "±", "0.294", "1.0", "±", "0.0"]
    columns = pd.read_csv(tmp_path / "new" / "out" / "lesions.csv").columns
    assert columns[:7].tolist() == ["case", "kind", "region", "outcome", "x", "y", "z"]


def test_equal_scores_have_equal_intervals_in_whatever_order_the_cases_come(tmp_path):
    rows = rows_of(np.random.default_rng(2).random(9))
    one, other = (write_scores(each, [], str(tmp_path)) for each in (rows, rows[4:] + rows[:4]))
    assert one == other


def test_one_case_has_no_sd(tmp_path):
    summary = write_scores(rows_of([0.5]), [], str(tmp_path))
    assert json.loads((tmp_path / "summary.json").read_text())["scores"]["WT"]["dice"]["sd"] is None
    assert table(summary).split() == ["Dice", "HD95", "mm", "WT", "0.500", "1.0"]


def test_the_interval_of_a_mean_has_its_stated_coverage():
    random = np.random.default_rng(1)
    samples = random.normal(0.7, 0.1, (40, 3000))  # 3000 studies of 40 cases
    low, high = mean_interval(samples)
    assert np.mean((low <= 0.7) & (0.7 <= high)) == pytest.approx(0.95, abs=0.03)
    assert np.median(high - low) == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(40), rel=0.1)


def test_the_text_of_a_mean_leaves_out_cases_without_a_value_and_is_empty_without_any():
    assert mean_text(np.array([0.1, np.nan, 0.3])) == "0.200 (0.100 to 0.300)"
    assert mean_text(np.array([-0.5]), "+.1f") == "-0.5 (-0.5 to -0.5)"
    assert mean_text(np.array([np.nan, np.nan])) == ""


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_a_failed_write_does_not_change_the_folder(tmp_path, monkeypatch, step):
    write_scores(rows_of([0.5]), [], str(tmp_path))
    before = {name: (tmp_path / name).read_text() for name in FILES}

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(*((module.Path, "write_text", full) if step == "write_text" else (os, "replace", full)))
    with pytest.raises(InputError, match="disk full"):
        write_scores(rows_of([0.1, 0.2]), [], str(tmp_path))
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == before


def test_the_command_scores_on_several_processes(folders):
    arguments = [f"--{name}={folders / name}" for name in ("reference", "prediction")]
    command = [sys.executable, "-m", "tools", "score", *arguments, f"--output={folders / 'out'}", "--workers=2"]
    done = subprocess.run([*command, "--cohort=brats2024_met"], capture_output=True, text=True, check=True)
    assert "1.000 ± 0.000" in done.stdout and sorted(os.listdir(folders / "out")) == FILES


def test_an_evaluation_scores_in_mm_of_the_scan(tmp_path):
    truth, guess = label_map(enhancing=4), label_map(shift=1, enhancing=4)
    reference = MetaTensor(torch.from_numpy(truth)[None], affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    batch, output = [{"case": "a", "reference": reference}], [{"pred": torch.from_numpy(guess)[None]}]
    handler = ScoreCases(str(tmp_path), "legacy", COHORTS["brats2021"], "")
    handler.start(None)
    handler.score(SimpleNamespace(state=SimpleNamespace(batch=batch, output=output)))
    whole = next(row for row in handler.rows if row["region"] == "WT")
    assert whole["reference_ml"] == pytest.approx(np.count_nonzero(truth) * 0.024)
    assert whole["hd95"] == 2  # moved by one voxel along x


def test_scores_are_not_recorded_next_to_weights_that_were_replaced_during_the_run(tmp_path, caplog):
    """As by a training that goes on: they would be taken for the scores of the new weights."""
    weights, nothing = tmp_path / "model.pt", np.zeros((4, 4, 4), np.uint8)
    for after in (b"before", b"after"):
        weights.write_bytes(b"before")
        handler = ScoreCases(str(tmp_path / "scores"), "legacy", COHORTS["brats2021"], str(weights))
        handler.start(None)
        handler.rows, handler.lesions = score_case("a", nothing, nothing, [1, 1, 1], "legacy", COHORTS["brats2021"])
        weights.write_bytes(after)
        (tmp_path / "scores.json").unlink(missing_ok=True)
        handler.write(None)
        assert (tmp_path / "scores.json").exists() == (after == b"before")
    assert "not recorded next to the weights: they were replaced during this run" in caplog.text
