"""The pages of docs/: their commands are ones that the command line takes, their links lead somewhere."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from ssl_lightning.entry import run

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
CONTROLS = (ROOT / "docs" / "controls.md").read_text()
METRIC = re.compile(r'"train/(\w+)"')
COMMANDS = re.findall(r"^ssl-lightning (.*)$", CONTROLS, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.rpartition(" ")[2])
def test_every_control_is_a_command_that_is_understood(command, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    with pytest.raises(SystemExit) as left:
        run([*shlex.split(command), "--print_config"])
    assert left.value.code == 0
    assert "class_path" in capsys.readouterr().out


@pytest.mark.parametrize("room", ["ssl_lightning", "configs", "benchmarks", "notebooks", "docs"])
def test_every_page_that_a_file_names_is_there(room):
    files = [path for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".yaml", ".ipynb", ".md")]
    named = {(path, name) for path in files for name in re.findall(r"(?<![\w./-])[\w./-]+\.md\b", path.read_text())}
    assert [(path, name) for path, name in sorted(named) if not any(map(Path.exists, places(path, name)))] == []


def places(path, name):
    """What a file may mean by a name: beside it, or in a folder that holds it."""
    return [above / name for above in path.parents if above.is_relative_to(ROOT)]


def test_every_metric_of_training_is_in_the_readme():
    written = {name for path in (ROOT / "ssl_lightning").rglob("*.py") for name in METRIC.findall(path.read_text())}
    assert {"loss", "flops"} <= written
    listed = re.findall(r"^\| `train/`.*", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [name for name in sorted(written) if f"`{name}`" not in " ".join(listed)] == []


def test_there_is_a_command_for_every_control_of_the_papers():
    assert len(COMMANDS) == 12
    asked = ("--model.learn_from base", "--model.learn_from experts", "--data.subset null", "3_distill", "label_noise")
    assert all(option in CONTROLS for option in (*asked, "RandomPartition"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    targets = [target for target in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
