"""Notebooks are stripped and valid, and run without a warning on the checkpoint of a real run."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = {"inspect_clusters": 5}
"""Cells of each notebook that end in a figure."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_reports_how_many_figures_it_makes():
    assert {path.stem for path in NOTEBOOKS} == set(FIGURES)


@each_notebook
def test_a_notebook_is_valid_and_each_cell_has_an_id(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"] >= 5) == (4, True)
    nbformat.validate(notebook)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_a_notebook_holds_no_outputs_counts_or_traces_of_a_machine(path):
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert cell["metadata"] == {}
    assert set(json.loads(path.read_text(encoding="utf-8"))["metadata"]) == {"kernelspec", "language_info"}


@each_notebook
def test_cells_are_thin(path):
    for cell in code_cells(path):
        source = "".join(cell["source"])
        lines = [line for line in source.splitlines() if line and not line.startswith(("import ", "from ", "%"))]
        assert len(lines) <= 10, source
        assert not re.search(r"^\s*(def|class) ", source, re.MULTILINE), source


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Three epochs of the demo through the real command line."""
    folder = tmp_path_factory.mktemp("runs")
    command = ["fit", "--config", "configs/demo.yaml", "--trainer.max_epochs", "3", "--run.name", "demo"]
    command += ["--run.dir", str(folder), "--trainer.accelerator", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "ssl_lightning", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "demo" / "checkpoints" / "last.ckpt"


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_and_plots_without_a_warning(path, checkpoint, monkeypatch):
    monkeypatch.setenv("SSL_LIGHTNING_CHECKPOINT", str(checkpoint))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(checkpoint.parent / "ipython"))  # no start-up files of the user
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    images = []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in cell.outputs:
            text = output.get("text", "") + json.dumps(output.get("data", {}).get("text/plain", ""))
            assert "warning" not in text.lower(), f"{cell.id}: {text}"
            if output.get("name") == "stderr":  # a progress bar and nothing else
                assert re.fullmatch(r"(\s|Features: .*batch/s\])*", output.text), f"{cell.id}: {output.text}"
            if "image/png" in output.get("data", {}):
                images.append(np.array(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("L")))
    assert len(images) == FIGURES[path.stem]
    for image in images:
        assert min(image.shape) > 200
        assert image.std() > 5, "an empty figure"
