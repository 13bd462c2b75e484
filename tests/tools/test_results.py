"""The results table of README.md is made only from the scores next to the weights."""

import json

import pytest
import torch
from tumour.errors import InputError
from tumour.scores.evaluation import record_scores

from tests.conftest import BUNDLES, ROOT
from tools import results
from tools.command_line import command_line


def test_the_readme_contains_the_table_that_the_command_makes():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert results.updated(text) == text, "run `make results`"
    table = text.partition(results.START)[2].partition(results.END)[0]
    assert all(f"| `{bundle}` |" in table for bundle in BUNDLES if (ROOT / "bundles" / bundle / "weights").is_dir())


def test_the_command_needs_no_option():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command_line(results.write_results, "tools results", [])
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text


def scored(folder, cases):
    torch.save({"a": torch.ones(3)}, folder / "model.pt")
    (folder / "patients.json").write_text(json.dumps({"train": ["a", "b"], "validate": ["c"]}))
    (folder / "settings.json").write_text('{"cohort": "msd"}')
    part = {"cases": cases, "mean": 0.7, "interval_low": 0.6, "interval_high": 0.8}
    region = {"kind": "region", "dice": part, "hd95": {**part, "mean": 9.0}}
    record_scores(folder / "model.pt", "msd", {"challenge": "legacy", "scores": {"TC": region}})
    return folder / "model.pt"


@pytest.mark.parametrize(("cases", "few"), [(4, True), (40, False)])
def test_the_number_of_scans_is_given_and_a_small_number_is_marked(cases, few, tmp_path):
    """Scores are recorded per scan, and a patient may have several; the data set is the one that they are read as."""
    text = results.results({"mine": scored(tmp_path, cases)})
    assert (
        f"| `mine` | 2 + 1, read as msd | {cases}, read as msd | legacy | 0.700 (0.600 to 0.800) | 0.700 | TC 9.0 |"
        in text
    )
    assert ("**Only 4 test scans**" in text) is few


def test_scans_without_any_region_to_score_are_given_as_such(tmp_path):
    checkpoint = scored(tmp_path, 40)
    record_scores(checkpoint, "msd", {"challenge": "goat2026", "scores": {}})
    assert "| 0, read as msd | goat2026 | no region to score |" in results.results({"mine": checkpoint})


def test_the_scans_are_those_of_the_region_that_most_of_them_have():
    """By the rules of 2026 a region that is in neither label map has no score."""
    assert (
        results.scans({"scores": {name: {"dice": {"cases": n}} for name, n in (("RC", 3), ("WT", 12), ("ET", 9))}})
        == 12
    )


def test_scores_without_a_distance_are_shown_as_not_measured(tmp_path):
    record = scored(tmp_path, 40).with_name("scores.json")
    content = json.loads(record.read_text())
    del content["cohorts"]["msd"]["scores"]["TC"]["hd95"]
    record.write_text(json.dumps(content))
    assert "| 0.700 | not measured |" in results.results({"mine": tmp_path / "model.pt"})


def test_scores_of_other_weights_are_not_shown(tmp_path):
    checkpoint = scored(tmp_path, 40)
    torch.save({"a": torch.zeros(3)}, checkpoint)
    assert "0.700" not in results.results({"mine": checkpoint})


def test_a_page_without_the_two_comments_is_refused():
    with pytest.raises(InputError, match="README.md must contain the lines"):
        results.updated("# A page\n")
