"""RESULTS.md and the table of README.md contain nothing that the next benchmark would delete."""

import json

import pytest
from tumour.errors import InputError

from benchmarks import results
from benchmarks.results import COMPARED, HERE, OURS, page, updated


def test_both_are_made_from_results_json_alone():
    sections = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    assert (HERE / "RESULTS.md").read_text(encoding="utf-8") == page(sections)
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    assert readme == updated(readme, sections) and "| segmenting a scan" in readme


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an empty page, where results are written."""
    (tmp_path / "README.md").write_text(f"{results.START}\n{results.END}")
    monkeypatch.setattr(results, "HERE", tmp_path)
    monkeypatch.setattr(results, "WITHOUT", "")
    monkeypatch.setattr(results, "machine", lambda *_: "2030-01-31, 4 x Xeon, 8 GB")
    return tmp_path


def test_a_run_with_some_sides_only_has_no_cell_for_the_others(here):
    name, column, sides = COMPARED["segmenting a scan, from file to file"]
    results.keep(name, "", "", [{"side": sides[OURS], column: "1.50 (1.00-2.00)"}], [])
    page = (here / "README.md").read_text()
    assert f"| seconds | CPU | {OURS} |\n" in page and "| segmenting a scan, from file to file | 4 cores, with" in page
    assert "| 1.50 |" in page and "nnU-Net v2" not in page


def test_nothing_is_written_if_a_page_cannot_be_made(here):
    (here / "README.md").write_text("no place for results")
    with pytest.raises(InputError, match="must contain the lines"):
        results.keep("score", "", "", [{"side": "a"}], [])
    assert [path.name for path in here.iterdir()] == ["README.md"]
