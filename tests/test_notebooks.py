"""Notebooks are stripped and valid, and run without a warning on runs of every method, through the command line."""

import ast
import base64
import io
import json
import re
from itertools import pairwise

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

from tests.trained_runs import EVERY, ROOT, STATES, WARM_UP, TrainedRuns

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = {
    "compare_runs": 2,
    "dissect_divide_and_contrast": 6,
    "inspect_clusters": 6,  # and a history for a run of several clusterings
    "inspect_features": 4,
    "your_images": 3,
}
"""Cells of each notebook that end in a figure, for a run of DeepCluster."""
IMPORTED = {"IPython.display", "matplotlib", "os", "pandas", "ssl_lightning.inspect"}
"""What notebooks import."""
PARAMETERS = "parameters"
"""The tag of the cell with parameters, which papermill knows too."""
SINGLE = ("inspect_clusters", "inspect_features")
"""Notebooks of one run of any method."""
IN_EVERY_STATE = ("deepcluster", "simclr")
"""A clustering and a contrastive method: `make test-slow` takes these, `make soak` all."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source_of(cell):
    return "".join(cell["source"])


def code_cells(path):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_reports_how_many_figures_it_makes():
    assert {path.stem for path in NOTEBOOKS} == set(FIGURES)


@each_notebook
def test_a_notebook_is_valid_and_each_cell_has_an_id(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"] >= 5) == (4, True)
    nbformat.validate(notebook)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_a_notebook_holds_no_outputs_counts_or_traces_of_a_machine(path):
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert cell["metadata"] in ({}, {"tags": [PARAMETERS]})
    assert set(read(path)["metadata"]) == {"kernelspec", "language_info"}


@each_notebook
def test_the_first_code_cell_has_the_parameters_and_each_is_explained(path):
    first, *others = code_cells(path)
    assert first["metadata"] == {"tags": [PARAMETERS]}
    assert not any(cell["metadata"] for cell in others)
    for line in source_of(first).splitlines():
        assert re.fullmatch(r"[a-z_]+ = .+  # .+", line), line


@each_notebook
def test_cells_are_thin_and_import_what_is_public(path):
    for cell in code_cells(path):
        source = re.sub(r"^%.*$", "", source_of(cell), flags=re.MULTILINE)
        body = [node for node in ast.parse(source).body if not isinstance(node, ast.Import | ast.ImportFrom)]
        assert sum(len(ast.unparse(node).splitlines()) for node in body) <= 8, source
        assert not re.search(r"^\s*(def|class) ", source, re.MULTILINE), source
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert set(names) <= IMPORTED, names


@each_notebook
def test_a_sentence_stands_before_each_figure(path):
    cells = read(path)["cells"]
    for before, cell in pairwise(cells):
        if "draw_" in source_of(cell).split("import")[0] and cell["cell_type"] == "code":
            assert before["cell_type"] == "markdown", source_of(cell)
            assert source_of(before).endswith("."), source_of(before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    return TrainedRuns(tmp_path_factory.mktemp("trained"))


def carry_out(name, monkeypatch, **parameters):
    """Run the cells of a notebook in this process, and return what each ends in.

    A kernel takes seconds to start, and Python warns in it instead of failing.
    """
    path = ROOT / "notebooks" / f"{name}.ipynb"
    monkeypatch.chdir(path.parent)
    space, results = {"_dh": [str(path.parent)]}, []
    for cell in code_cells(path):
        tree = ast.parse(re.sub(r"^%.*$", "", source_of(cell), flags=re.MULTILINE))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}: {cell['id']}", "exec"), space)
        if cell["metadata"]:
            assert set(parameters) <= set(space)
            space |= parameters
        if last is not None:
            results.append(eval(compile(ast.Expression(last.value), f"{name}: {cell['id']}", "eval"), space))
    for result in results:
        if isinstance(result, Figure):
            result.savefig(io.BytesIO())
        elif hasattr(result, "_repr_html_"):
            assert re.search("<table|<svg", result._repr_html_())
    return [result for result in results if result is not None]


@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("name", SINGLE)
def test_a_notebook_runs_on_a_run_of_every_method(name, method, trained, monkeypatch):
    results = carry_out(name, monkeypatch, path=str(trained(method)), max_images=120)
    assert sum(isinstance(result, Figure) for result in results) >= FIGURES[name] - 1


@pytest.mark.slow
@pytest.mark.parametrize("state", [WARM_UP, *(f"{method}-{state}" for method in IN_EVERY_STATE for state in STATES)])
@pytest.mark.parametrize("name", SINGLE)
def test_a_notebook_runs_in_every_state_of_a_run(name, state, trained, monkeypatch):
    results = carry_out(name, monkeypatch, path=str(trained(state)), max_images=120)
    assert sum(isinstance(result, Figure) for result in results) >= FIGURES[name] - 1


@pytest.mark.soak
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("method", [method for method in EVERY if method not in IN_EVERY_STATE])
@pytest.mark.parametrize("name", SINGLE)
def test_a_notebook_runs_in_every_state_of_a_run_of_every_method(name, method, state, trained, monkeypatch):
    results = carry_out(name, monkeypatch, path=str(trained(f"{method}-{state}")), max_images=120)
    assert sum(isinstance(result, Figure) for result in results) >= FIGURES[name] - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
def test_a_notebook_runs_on_images_without_labels(name, trained, monkeypatch):
    results = carry_out(name, monkeypatch, path=str(trained("unlabeled")), max_images=120)
    assert sum(isinstance(result, Figure) for result in results) >= FIGURES[name] - 2
    sentences = [result for result in results if isinstance(result, str)]
    assert ("no image of a cluster has a label: purity needs labels" in sentences) == (name == "inspect_clusters")


@pytest.mark.slow
def test_runs_of_different_methods_are_compared(trained, monkeypatch):
    paths = [str(trained(method)) for method in ("deepcluster", "simclr", "swav", "supervised")]
    results = carry_out("compare_runs", monkeypatch, paths=paths, max_images=120)
    assert sum(isinstance(result, Figure) for result in results) == FIGURES["compare_runs"]
    assert results[0].index.tolist() == ["deepcluster", "simclr"]  # the others are not evaluated
    assert results[2].index.tolist() == ["deepcluster", "simclr", "swav", "supervised"]
    assert "model.class_path" in results[3].index


@pytest.mark.slow
def test_the_stages_of_divide_and_contrast_are_dissected(trained, monkeypatch):
    results = carry_out("dissect_divide_and_contrast", monkeypatch, path=str(trained("distill")), max_images=120)
    assert sum(isinstance(result, Figure) for result in results) == FIGURES["dissect_divide_and_contrast"]


def parameters_of(name, trained, folder):
    """Small values of the parameters of each notebook."""
    if name == "your_images":
        return {"folder": str(folder), "epochs": 1, "num_clusters": 4}
    if name == "compare_runs":
        return {"paths": [str(trained(method)) for method in ("deepcluster", "simclr")], "max_images": 120}
    method = "distill" if name == "dissect_divide_and_contrast" else "deepcluster"
    return {"path": str(trained(method)), "max_images": 120}


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_in_a_kernel_and_plots_without_a_warning(path, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # no start-up files of the user
    notebook = nbformat.read(path, 4)
    place = next(place for place, cell in enumerate(notebook.cells) if cell.metadata.get("tags") == [PARAMETERS])
    given = "\n".join(f"{name} = {value!r}" for name, value in parameters_of(path.stem, trained, tmp_path).items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
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
        assert min(image.shape) > 50
        assert image.std() > 5, "an empty figure"


def test_the_documentation_has_a_sentence_for_each_notebook():
    text = (ROOT / "docs" / "notebooks.md").read_text()
    assert [path.stem for path in NOTEBOOKS if f"`{path.stem}`" not in text] == []
