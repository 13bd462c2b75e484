"""RESULTS.md contains nothing that the next benchmark would delete."""

import json

from benchmarks.results import HERE, page


def test_the_page_is_made_from_results_json_alone():
    sections = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    assert (HERE / "RESULTS.md").read_text(encoding="utf-8") == page(sections)
