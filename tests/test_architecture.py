"""The packages import downwards only, and the sources contain nothing that is banned."""

import ast
import importlib
import re
import typing
from pathlib import Path

import pytest
from torch import nn

PACKAGE = Path(__file__).parents[1] / "ssl_lightning"
CONFIGS = PACKAGE.parent / "configs"

LAYERS = {
    "arguments": "",
    "counter_rng": "",
    "decompositions": "",
    "errors": "",
    "failures": "",
    "processes": "",
    "progress": "",
    "types": "",
    "words": "",
    "files": "errors",
    "functional": "processes types",
    "models": "errors",
    "optim": "errors processes",
    "report": "decompositions errors types words",
    "safe_yaml": "arguments errors",
    "checkpoints": "arguments errors files safe_yaml",
    "clustering": "counter_rng decompositions errors files types",
    "contracts": "errors models types",
    "__init__": "checkpoints",
    "engines": "errors",
    "data": "processes progress clustering contracts counter_rng engines errors files models types words",
    "evaluation": "clustering counter_rng decompositions errors",
    "runs": "checkpoints errors files processes report",
    "sample_state": "clustering errors",
    "callbacks": "clustering contracts counter_rng errors evaluation failures files models "
    "processes progress report sample_state types",
    "methods": "checkpoints clustering contracts counter_rng errors failures files functional "
    "models optim processes sample_state types",
    "cli": "arguments callbacks checkpoints clustering data errors evaluation files methods models optim processes "
    "report runs safe_yaml words",
    "commands": "callbacks checkpoints cli clustering data engines errors evaluation files methods models"
    " progress report runs safe_yaml types optim words",
    "inspect": "callbacks checkpoints cli clustering errors evaluation methods models report runs types",
    "entry": "arguments cli errors",
    "__main__": "entry",
}
"""What each package or module imports of this project, from the ground up."""
ALLOWED = {name: set(imported.split()) for name, imported in LAYERS.items()}
NO_LIGHTNING = {
    "functional",
    "clustering",
    "evaluation",
    "report",
    "types",
    "counter_rng",
    "decompositions",
    "files",
    "models",
    "progress",
    "engines",
}


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def targets(path: Path) -> dict[str, str]:
    """Packages of ours that a file imports, each with the first name that it imports."""
    found = {}
    for name in sorted(imports(path)):
        parts = name.split(".")
        if parts[0] == "ssl_lightning" and len(parts) > 1 and not parts[1].startswith("__"):
            found.setdefault(parts[1], name)
    return {target: name for target, name in found.items() if target != package_of(path)}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    for target, name in targets(path).items():
        assert target in ALLOWED[package_of(path)], f"{path} imports {name}: an arrow up"


def test_every_allowance_is_used():
    used = {package: set() for package in ALLOWED}
    for path in sources():
        used[package_of(path)] |= targets(path).keys()
    assert {package: allowed - used[package] for package, allowed in ALLOWED.items() if allowed - used[package]} == {}


def test_protocols_and_casts_are_few():
    """One contract describes the data; Protocols are for optional abilities. A cast hides a gap of the types."""
    nodes = [node for path in sources() for node in ast.walk(ast.parse(path.read_text()))]
    protocols = [
        node.name
        for node in nodes
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Protocol" for base in node.bases)
    ]
    casts = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "cast"]
    assert len(protocols) <= 8, protocols
    assert len(casts) <= 12


def test_the_base_class_of_the_methods_has_one_topic():
    assert len((PACKAGE / "methods" / "method.py").read_text().splitlines()) <= 230


def test_the_data_module_is_reached_by_the_contract_alone():
    """Not in what starts a run, which has the data module itself."""
    for path in sources():
        if package_of(path) in ("methods", "callbacks", "data"):
            assert "trainer.datamodule" not in path.read_text(), f"{path}: use data_of(trainer)"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_packages_do_not_import_lightning(path):
    if package_of(path) in NO_LIGHTNING:
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


def test_no_protocol_that_is_checked_names_a_submodule():
    """Since Python 3.12 `isinstance` looks at classes and dictionaries alone, where a module's submodules are not."""
    checked = []
    for path in sources():
        if re.search(r"^class \w+\(Protocol\)", path.read_text(), re.MULTILINE):
            module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
            checked += [
                thing for thing in vars(module).values() if "_is_runtime_protocol" in getattr(thing, "__dict__", ())
            ]
    assert checked
    for protocol in checked:
        for name, kind in typing.get_type_hints(protocol).items():
            assert not (isinstance(kind, type) and issubclass(kind, nn.Module)), f"{protocol.__name__}.{name}"
