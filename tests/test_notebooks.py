"""The notebooks run from top to bottom, on a tiny search."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.parametrize("name", ["results", "gallery"])
def test_notebook_runs(name, small_run, tmp_path, monkeypatch):
    run = shutil.copytree(small_run, tmp_path / "run")
    monkeypatch.setenv("AUGSEARCH_RUN", str(run))
    monkeypatch.setenv("AUGSEARCH_POLICY", str(run / "policy.json"))
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "committed without outputs"
    nbclient.NotebookClient(
        book, timeout=120, resources={"metadata": {"path": str(NOTEBOOKS)}}
    ).execute()
    pictures = [
        output
        for cell in book.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 2


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {"results", "gallery"}
