"""RESULTS.md and the table of README.md contain nothing that the next benchmark would delete."""

import json

from benchmarks.results import HERE, page, updated


def test_both_are_made_from_results_json_alone():
    sections = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    assert (HERE / "RESULTS.md").read_text(encoding="utf-8") == page(sections)
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    assert readme == updated(readme, sections) and "| segmenting a scan" in readme
