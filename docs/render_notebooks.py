"""Carry out the notebooks and write them with their outputs to docs/notebooks: `make notebooks`.

The documentation shows these pages, so that building it needs neither runs nor images. `RUNS` has the runs of the
pages, in the folder runs of the folder that is given; docs/notebooks.md has their commands.
"""

import argparse
import base64
import io
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "notebooks"
RUNS = {
    "compare_runs": {"paths": ["runs/demo", "runs/demo-k10"]},
    "dissect_divide_and_contrast": {"path": "runs/dnc-student"},
    "inspect_clusters": {"path": "runs/demo"},
    "inspect_features": {"path": "runs/simclr-digits", "max_points": 300},
    "your_images": {},
}
"""Parameters of each page."""
WIDTH, QUALITY = 900, 80
"""Largest width of a figure in pixels, and its quality as WebP."""
TABLE = re.compile(r"<table.*</table>", re.DOTALL)


def main() -> None:
    """Render the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder in which the commands of the runs were given")
    parser.add_argument("names", nargs="*", default=sorted(RUNS), help="notebooks; all by default")
    given = parser.parse_args()
    PAGES.mkdir(exist_ok=True)
    for name in given.names:
        notebook = carried_out(name, {"folder": str(given.folder.resolve()), **RUNS[name]})
        for old in PAGES.glob(f"{name}-*.webp"):
            old.unlink()
        (PAGES / f"{name}.md").write_text(page(name, notebook), encoding="utf-8")


def carried_out(name: str, parameters: dict[str, object]) -> NotebookNode:
    """A notebook with the outputs of its cells."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    place = next(place for place, cell in enumerate(notebook.cells) if cell.metadata.get("tags") == ["parameters"])
    given = "\n".join(f"{parameter} = {value!r}" for parameter, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(path.parent)}}).execute()
    del notebook.cells[place + 1]
    for parameter, value in parameters.items():  # the page shows the run that it is made of, and no folder of a machine
        line = re.compile(rf"^{parameter} = .*?(?=  #)", re.MULTILINE)
        if parameter != "folder":
            shown = repr(value).replace("'", '"')
            notebook.cells[place].source = line.sub(f"{parameter} = {shown}", notebook.cells[place].source)
    return notebook


def page(name: str, notebook: NotebookNode) -> str:
    """The page of a notebook in Markdown; its figures are written beside it."""
    parts, count = [], 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        parts.append(f"<!-- not run: interactive -->\n```python\n{code}\n```")
        printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout").strip()
        parts += [f"```text\n{printed}\n```"] if printed else []
        for output in (output for output in cell.outputs if output.output_type != "stream"):
            data = output.get("data", {})
            if "image/png" in data:
                count += 1
                file = f"{name}-{count}.webp"
                save(data["image/png"], PAGES / file)
                parts.append(f"![{cell.id}]({file})")
            elif found := TABLE.search(data.get("text/html", "")):
                parts.append(framed(found[0]))
            elif "text/html" in data:
                (PAGES / f"{name}-{cell.id}.html").write_text(data["text/html"], encoding="utf-8")
                parts.append(f"```{{eval-rst}}\n.. raw:: html\n   :file: {name}-{cell.id}.html\n```")
            else:
                parts.append(f"```text\n{data['text/plain'].strip()}\n```")
    parts.insert(1, f"The notebook is `notebooks/{name}.ipynb`.")
    return "\n\n".join(parts) + "\n"


def framed(table: str) -> str:
    """A table of pandas that looks like those of the theme and scrolls where it is too wide."""
    table = re.sub(r"<table [^>]*>", '<table class="docutils">', table)
    return f'<div class="table-wrapper docutils container">\n{table}\n</div>'


def save(encoded: str, path: Path) -> None:
    """Write a figure as WebP."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    image.save(path, quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
