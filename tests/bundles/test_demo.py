"""The notebook of docs/ runs from the first cell to the last."""

import nbformat
import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "demo.ipynb"


def test_the_notebook_runs_from_data_to_report(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    tiny = {"DEMO": tmp_path, "DEMO_SIZE": 40, "DEMO_PATCH": 32, "DEMO_EPOCHS": 2, "DEMO_ITERATIONS": 2}
    for name, value in tiny.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert (tmp_path / "results" / "report" / "report.html").is_file()
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "16" in "".join(output.get("text", "") for output in outputs)


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
