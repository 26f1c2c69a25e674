"""The rooms import downwards only, and nothing that is banned stands in the sources."""

import ast
import importlib
import re
import typing
from pathlib import Path

import pytest
from torch import nn

PACKAGE = Path(__file__).parents[1] / "ssl_lightning"
CONFIGS = PACKAGE.parent / "configs"

ALLOWED = {
    "types": set(),
    "files": {"errors"},
    "counter_rng": set(),
    "processes": set(),
    "errors": set(),
    "failures": set(),
    "safe_yaml": {"errors"},
    "models": {"errors"},
    "optim": {"errors"},
    "checkpoints": {"files", "errors", "safe_yaml"},
    "functional": {"types", "processes"},
    "clustering": {"types", "counter_rng", "files", "errors"},
    "evaluation": {"types", "counter_rng", "clustering", "errors"},
    "report": {"types", "errors"},
    "weights": {"models"},
    "sample_state": {"types", "clustering", "processes", "errors"},
    "data": {"types", "counter_rng", "clustering", "files", "errors"},
    "methods": {
        "counter_rng",
        "types",
        "processes",
        "sample_state",
        "functional",
        "models",
        "optim",
        "checkpoints",
        "clustering",
    }
    | {"failures", "files", "errors"},
    "callbacks": {"types", "counter_rng", "processes", "sample_state", "clustering", "evaluation", "report", "errors"}
    | {"failures", "files"},
    "runs": {"checkpoints", "report", "files", "errors", "processes", "safe_yaml", "command_line"},
    "commands": {
        "types",
        "counter_rng",
        "processes",
        "files",
        "models",
        "optim",
        "checkpoints",
        "functional",
        "clustering",
        "evaluation",
    }
    | {"report", "weights", "sample_state", "data", "methods", "callbacks", "runs", "errors", "cli"},
    "quiet": set(),
    "fitting": {"files", "checkpoints", "sample_state", "data", "methods", "callbacks", "runs", "errors"},
    "cli": {
        "types",
        "counter_rng",
        "processes",
        "files",
        "models",
        "optim",
        "checkpoints",
        "functional",
        "clustering",
        "evaluation",
    }
    | {"report", "weights", "sample_state", "data", "methods", "callbacks", "runs", "errors", "fitting", "quiet"}
    | {"command_line"},
    "command_line": {"safe_yaml", "errors"},
    "entry": {"errors", "cli", "commands", "command_line"},
    "__main__": {"entry"},
    "__init__": {"checkpoints"},
}
NO_LIGHTNING = {
    "functional",
    "clustering",
    "evaluation",
    "report",
    "weights",
    "types",
    "counter_rng",
    "files",
    "models",
}


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "ssl_lightning" or len(parts) < 2 or parts[1].startswith("__"):
            continue
        target = parts[1]
        assert target == room(path) or target in ALLOWED[room(path)], f"{path} imports {name}: an arrow up"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_rooms_do_not_import_lightning(path):
    if room(path) in NO_LIGHTNING:
        assert not any(name.split(".")[0] == "lightning" for name in imports(path)), path


def test_every_file_reports_in_its_first_line_what_lives_there():
    for path in sources():
        assert path.read_text().startswith('"""'), path


def test_what_lightning_gets_wrong_is_not_used():
    banned = r"estimated_stepping_batches|reload_dataloaders_every_n_epochs|weights_only=False|pytorch_lightning"
    for path in sources():
        assert not re.search(banned, path.read_text()), path


def test_overlays_append_callbacks_and_never_replace_them():
    for overlay in (path for folder in ("data", "scale", "shared") for path in (CONFIGS / folder).glob("*.yaml")):
        text = overlay.read_text()
        whole = "class_path: ssl_lightning.methods." in text  # stands alone, so there is nothing that it could replace
        assert whole or not re.search(r"^\s*callbacks:", text, re.MULTILINE), f"{overlay}: use callbacks+:"


def test_the_configs_that_the_head_of_a_config_names_are_there():
    root = Path(__file__).parents[1]
    for config in (root / "configs").rglob("*.yaml"):
        head = "\n".join(line for line in config.read_text().splitlines() if line.startswith("#"))
        named = re.findall(r"configs/[\w/]+\.yaml", head)
        assert [name for name in named if not (root / name).is_file()] == [], config


def test_every_config_at_paper_size_is_in_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "scale.md").read_text()
    named = set(re.findall(r"^\| `configs/scale/(\w+)\.yaml`", text, re.MULTILINE))
    for stem, sizes, unit in re.findall(r"^\| `configs/scale/(\w+)\{([\d,]+)\}(\w+)\.yaml`", text, re.MULTILINE):
        named |= {f"{stem}{size}{unit}" for size in sizes.split(",")}
    assert named == {path.stem for path in (CONFIGS / "scale").glob("*_*.yaml")}


def test_no_protocol_that_is_requested_names_a_submodule():
    """Since Python 3.12 `isinstance` looks at classes and dictionaries alone, where a module's submodules are not."""
    asked = []
    for path in sorted((PACKAGE / "callbacks").glob("*.py")) + sorted((PACKAGE / "methods").glob("*.py")):
        module = importlib.import_module(f"ssl_lightning.{path.parent.name}.{path.stem}")
        asked += [thing for thing in vars(module).values() if "_is_runtime_protocol" in getattr(thing, "__dict__", ())]
    assert len(asked) > 10
    for protocol in asked:
        for name, kind in typing.get_type_hints(protocol).items():
            assert not (isinstance(kind, type) and issubclass(kind, nn.Module)), f"{protocol.__name__}.{name}"
