"""Two runs are compared on the cases that both scored."""

import json

import numpy as np
import pandas as pd
import pytest
from tumour.errors import InputError

from tools.command_line import command_line
from tools.compare import common, compare, differences, significance

REGIONS = ["WT", "TC"]


def write(folder, dice, cases=None, challenge="legacy"):
    """A run whose region TC is always 0.5."""
    folder.mkdir()
    cases = cases or [f"{number:03d}" for number in range(len(dice))]
    rows = [
        {"case": case, "kind": "region", "region": region, "dice": value, "hd95": 9 * value}
        for case, each in zip(cases, dice, strict=True)
        for region, value in zip(REGIONS, (each, 0.5), strict=True)
    ]
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    (folder / "summary.json").write_text(json.dumps({"challenge": challenge}))
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    base = np.linspace(0.3, 0.8, 20)
    gain = np.where(np.arange(20) == 7, -0.2, 0.05 + np.arange(20) / 1000)  # better except for case 007
    return write(tmp_path / "a", base), write(tmp_path / "b", base + gain), gain


def test_a_steady_gain_is_significant_and_no_difference_is_not(runs):
    result = significance(differences(runs[0], runs[1], "dice"))
    gain = runs[2]
    assert list(result.index) == REGIONS and (result["cases"] == 20).all()
    assert result["B - A"]["WT"] == pytest.approx(gain.mean()) and result["p"]["WT"] < 0.01
    assert result["from"]["WT"] < gain.mean() < result["to"]["WT"]
    assert result.loc["TC"].tolist() == [0, 0, 0, 1, 20]


def test_p_is_the_value_of_the_signed_rank_test():
    # 4 gains: 2 of the 16 sign patterns are as extreme; ranks 1 + 2 + 3 against 4: 14 of 16 are
    assert significance(pd.DataFrame({"WT": [0.1, 0.2, 0.3, 0.4]}))["p"]["WT"] == pytest.approx(2 / 16)
    assert significance(pd.DataFrame({"WT": [0.1, 0.2, 0.3, -0.4]}))["p"]["WT"] == pytest.approx(14 / 16)


def test_swapping_the_runs_changes_the_sign(runs):
    there, back = differences(runs[0], runs[1], "hd95"), differences(runs[1], runs[0], "hd95")
    pd.testing.assert_frame_equal(there, -back)


def test_the_ten_cases_that_differ_most_are_listed(runs):
    text = compare(runs[0], runs[1])
    worst = text.split("differ most")[1]
    named = [line.split()[0] for line in worst.splitlines() if line[:1].isdigit()]
    assert named == ["007", *(f"{number:03d}" for number in range(19, 10, -1))]
    assert "hd95\n" in text and "lesion_dice" not in text  # the runs have no such column


def test_only_cases_that_both_runs_scored_count_and_are_paired_by_name(tmp_path):
    a = write(tmp_path / "a", [0.5, 0.6, 0.7], ["x", "y", "z"])
    b = write(tmp_path / "b", [0.9, 0.8, 0.1], ["z", "y", "w"])
    assert differences(a, b, "dice")["WT"].to_dict() == pytest.approx({"y": 0.2, "z": 0.2})


@pytest.mark.parametrize("name", ["NA", "null", "nan", "007"])
def test_a_case_may_have_a_name_that_pandas_reads_as_missing_or_as_a_number(tmp_path, name):
    a, b = (write(tmp_path / run, dice, [name, "z"]) for run, dice in (("a", [0.5, 0.5]), ("b", [0.7, 0.5])))
    assert differences(a, b, "dice")["WT"].to_dict() == pytest.approx({name: 0.2, "z": 0.0})
    assert name in compare(a, b).split("differ most")[1]


def test_cases_that_not_all_runs_scored_are_left_out_of_the_means_and_named():
    scores = pd.DataFrame(
        {"first": [0.5, 0.7, np.nan], "second": [0.4, 0.6, 0.0]}, pd.Index(["a", "b", "c"], name="case")
    )
    known, others = common(scores)
    assert [*known.index] == ["a", "b"] and others == ["c"]
    assert common(known)[1] == []
    with pytest.raises(InputError, match="No case was scored by all"):
        common(scores[2:])


def test_a_run_is_a_file_or_its_folder_or_the_folder_of_an_evaluation(tmp_path, runs):
    (tmp_path / "eval").mkdir()
    scores = write(tmp_path / "eval" / "scores", [0.5, 0.6])
    for run in (f"{scores}/scores.csv", scores, str(tmp_path / "eval")):
        assert differences(runs[0], run, "dice").shape == (2, 2)


def test_runs_that_cannot_be_compared_are_refused(tmp_path, runs, capsys):
    strangers = write(tmp_path / "strangers", [0.5], ["stranger"])
    other_rules = write(tmp_path / "rules", [0.5], challenge="glioma2023")
    for other, metric, message in [
        (strangers, "dice", "no scores of one case and region"),
        (other_rules, "dice", "of glioma2023"),
        (runs[1], "beauty", "beauty"),
        (str(tmp_path), "dice", "does not exist"),
    ]:
        with pytest.raises(InputError, match=message):
            compare(runs[0], other, metric)
    for rows, message in {
        "x,region,WT,1\nx,region,WT,0": "two rows for x region WT",
        ",region,WT,1": "a row without",
        "x,region,WT,45.2": "a Dice that is not from 0 to 1",  # in %
        "x,region,WT,inf": "a Dice that is not from 0 to 1",
        "": "no row",
    }.items():
        (tmp_path / "scores.csv").write_text(f"case,kind,region,dice\n{rows}\n")
        with pytest.raises(InputError, match=f"scores.csv' has {message}"):
            compare(runs[0], str(tmp_path))
    with pytest.raises(InputError, match="metric must be a column of numbers"):
        compare(runs[0], runs[1], "kind")
    (tmp_path / "notes.csv").write_text("a,case\n1,2\n")
    with pytest.raises(SystemExit) as stopped:
        command_line(compare, "tools compare", [runs[0], str(tmp_path / "notes.csv"), "--metric=dice"])
    assert stopped.value.code == 1 and "has no column" in capsys.readouterr().err
