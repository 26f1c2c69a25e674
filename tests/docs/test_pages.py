"""README and pages: what they link to and name exists, and what is to be documented is."""

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import ssl_lightning.callbacks
import ssl_lightning.clustering
import ssl_lightning.data
import ssl_lightning.evaluation
import ssl_lightning.methods
import ssl_lightning.models
import ssl_lightning.optim
from ssl_lightning.cli.main import OPTIONS
from ssl_lightning.data import ImageModule, Limits, View
from ssl_lightning.runs import WandbRun
from tests.docs.pages import NOT_RUN, PAGES, ROOT, SHELL, SHOWN, blocks, calls, runnable, title

DOCS = ROOT / "docs"
METRIC = re.compile(r'"train/(\w+)"')
COMMON = {"self", "backbone", "optimizer", "schedule", "decay_all", "preprocessing", "image_size", "mean", "std"}
"""Arguments of every method, on the page of methods."""
METHOD_PAGES = {
    "BYOL": "methods/byol.md",
    "ClusterFit": "methods/clusterfit.md",
    "DeepCluster": "methods/deepcluster.md",
    "DeepClusterV2": "methods/deepcluster_v2.md",
    "Distill": "methods/divide_contrast.md",
    "FrozenBackbone": "controls.md",
    "InstanceRecognition": "methods/instance_recognition.md",
    "LocalAggregation": "methods/local_aggregation.md",
    "MoCLR": "methods/moclr.md",
    "RawPixels": "controls.md",
    "RotationPrediction": "controls.md",
    "SimCLR": "methods/simclr.md",
    "SoftDistillation": "controls.md",
    "Supervised": "controls.md",
    "SwAV": "methods/swav.md",
}
each_page = pytest.mark.parametrize("page", PAGES, ids=title)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@each_page
def test_every_link_leads_somewhere(page):
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in target]
    for path, _, anchor in (target.partition("#") for target in targets):
        found = page.parent / path if path else page
        assert found.exists(), f"{title(page)}: {path}"
        assert not anchor or anchor in anchors(found), f"{title(page)}: {path}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Headings as GitHub and the site name them in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_block_is_run_or_has_a_reason(page):
    for block in blocks(page):
        assert block.language in {*SHELL, *SHOWN, "python"}, block
        assert not block.reason or block.reason in NOT_RUN, block


def test_every_reason_is_given_somewhere():
    assert {block.reason for page in PAGES for block in blocks(page) if block.reason} == set(NOT_RUN)


def test_every_target_and_variable_of_make_is_in_the_makefile(tmp_path):
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        named = re.findall(r"`make ([a-z][a-z_-]+)", page.read_text())
        for block in (block for block in runnable(page) if block.language in SHELL):
            named += [word for call in calls(block, tmp_path) if call[0] == "make" for word in call[1:]]
        for word in named:
            variable = word.partition("=")[0]
            assert re.search(rf"^{variable}( \?=|:)", makefile, re.MULTILINE), f"{title(page)}: {word}"


@pytest.mark.parametrize("folder", ["ssl_lightning", "configs", "benchmarks", "notebooks", "docs"])
def test_every_page_that_a_file_names_is_there(folder):
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".ipynb", ".md")]
    files = [path for path in files if "_build" not in path.parts]
    named = {(path, name) for path in files for name in re.findall(r"(?<![\w./-])[\w./-]+\.md\b", path.read_text())}
    named = {(path, name) for path, name in named if name != "README.md"}
    assert [(path, name) for path, name in sorted(named) if not any(map(Path.exists, places(path, name)))] == []


def places(path: Path, name: str) -> list[Path]:
    """What a file may mean by a name: beside it, or in a folder that holds it."""
    return [above / name for above in path.parents if above.is_relative_to(ROOT)]


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for page in PAGES:
        for block in blocks(page):
            if block.language == "{toctree}":
                entries = [line for line in block.text.splitlines() if line and not line.startswith(":")]
                listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    assert listed == {page for page in PAGES if page.is_relative_to(DOCS)} - {DOCS / "index.md"}


def test_every_metric_of_training_is_documented():
    written = {name for path in (ROOT / "ssl_lightning").rglob("*.py") for name in METRIC.findall(path.read_text())}
    assert {"loss", "flops"} <= written
    listed = re.findall(r"^\| `train/`.*", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert [name for name in sorted(written) if f"`{name}`" not in " ".join(listed)] == []


@pytest.mark.parametrize("name", [name for name in ssl_lightning.methods.__all__ if name != "Method"])
def test_every_option_of_a_method_is_on_its_page(name):
    text = (DOCS / METHOD_PAGES[name]).read_text()
    assert f"`{name}`" in text or name in ("RawPixels", "RotationPrediction", "Supervised")
    arguments = set(inspect.signature(getattr(ssl_lightning.methods, name).__init__).parameters) - COMMON
    assert [argument for argument in sorted(arguments) if argument not in text] == []


def test_every_option_of_the_other_classes_is_in_the_table_of_options():
    text = (DOCS / "configuration.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    for option in (*fields(ImageModule), *fields(View), *fields(Limits)):
        assert f"`{option.name}`" in text, option.name
    for module in ("callbacks", "clustering", "data", "evaluation", "models", "optim"):
        for name, thing in vars(getattr(ssl_lightning, module)).items():
            row = next((line for names, line in rows.items() if f"`{name}`" in names.split(", ")), None)
            for argument in inspect.signature(thing).parameters if row and inspect.isclass(thing) else ():
                own = argument not in {field.name for field in fields(ImageModule)} | {"params", "args", "kwargs"}
                assert not own or f"`{argument}`" in row or argument in row, f"{name}: {argument}"


def test_every_option_of_a_run_is_in_the_table_of_options():
    text = (DOCS / "configuration.md").read_text()
    assert [name for name in OPTIONS if f"`--{name}`" not in text] == []
    assert all(f"`{option}`" in (DOCS / "wandb.md").read_text() for option in inspect.signature(WandbRun).parameters)


def test_every_command_and_configuration_is_documented():
    text = (DOCS / "configuration.md").read_text()
    command = [sys.executable, "-m", "ssl_lightning", "--help"]
    overview = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  ([a-z][a-z-]+) {2,}\S", overview, re.MULTILINE)
    assert {"fit", "clusters"} <= set(commands)
    assert [name for name in commands if f"`{name}" not in text] == []
    for config in (ROOT / "configs").rglob("*.yaml"):
        name = config.relative_to(ROOT / "configs").with_suffix("").as_posix()
        assert f"`{name}`" in text or name.startswith("scale/"), name
