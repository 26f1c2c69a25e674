"""Notebooks: thin, stripped, and executed from the first to the last cell on a checkpoint that the test trains."""

import base64
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ssl_lightning.cli import CommandLine

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stripped_and_thin(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    for cell in code_cells(path):
        assert not cell.outputs
        assert cell.execution_count is None
        assert "def " not in cell.source, "functions live in the package, where they are tested"
        assert len(cell.source.splitlines()) <= 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    short = ["--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    config = str(ROOT / "configs" / "demo.yaml")
    CommandLine(["fit", "--config", config, "--run.dir", str(folder), "--run.name", "looked-at", *short], quiet=True)
    return folder / "looked-at"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_without_a_warning_and_draws(path, run, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_LIGHTNING_RUN", str(run))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 6  # sizes, gallery, purity, neighbours, two maps
    assert all(len(base64.b64decode(picture)) > 5000 for picture in pictures)
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "DeepCluster: 1438 pictures, 128 features, 30 clusters" in printed
    assert "NMI to the classes" in printed
