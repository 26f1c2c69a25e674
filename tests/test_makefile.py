"""The Makefile: portable to GNU make 3.81, options validated before the first stage, the right interpreter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_lightning.commands.stage_options import problem

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
OPTIONS = {"data": "digits", "scale": "", "k": "5", "seed": "0"}
LATER_THAN_3_81 = {
    "$(file": r"\$\(file\s",
    "!=": r"^[\w.-]+\s*!=",
    "::=": r"::=",
    ".ONESHELL": r"^\.ONESHELL",
    "undefine": r"^undefine\s",
    "private": r":\s*private\s",
    "grouped targets": r"&:",
    "let and intcmp": r"\$\((let|intcmp)\s",
    ".SHELLSTATUS": r"\.SHELLSTATUS",
}
STUB = """#!/bin/sh
exec {python} -c 'import sys; sys.version_info, sys.version = (3, 10, 4), "3.10.4 (main)"; exec(sys.argv.pop(1))' "$2"
"""


@pytest.mark.parametrize("feature", LATER_THAN_3_81)
def test_no_feature_is_later_than_make_3_81(feature):
    assert not re.search(LATER_THAN_3_81[feature], MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("data", "nowhere", "found DATA=nowhere; expected the name of a file in configs/data: cifar10,"),
        ("data", "", "found DATA=; expected"),
        ("data", "../scale/cpu", "found DATA=../scale/cpu; expected"),
        ("scale", "huge", "found SCALE=huge; expected the name of a file in configs/scale"),
        ("k", "ten", "found K=ten; expected a whole number of at least 2"),
        ("k", "1", "found K=1; expected"),
        ("k", "2.5", "found K=2.5; expected"),
        ("k", "", "found K=; expected"),
        ("k", "²", "found K=²; expected"),
        ("seed", "-1", "found SEED=-1; expected a whole number from 0 to 4294967295"),
        ("seed", "4294967296", "found SEED=4294967296; expected"),
    ],
)
def test_options_that_no_stage_can_use_are_one_line(option, value, found):
    assert problem(OPTIONS | {option: value}, ROOT / "configs").startswith(found.replace("configs", f"{ROOT}/configs"))


@pytest.mark.parametrize("option", [{}, {"scale": "cpu"}, {"k": "2"}, {"seed": "4294967295"}])
def test_options_that_a_stage_can_use_have_no_problem(option):
    assert problem(OPTIONS | option, ROOT / "configs") == ""


@pytest.mark.parametrize("target", ["clusterfit", "divide_contrast"])
@pytest.mark.parametrize("option", ["K=x'y", "DATA=nowhere", "SEED=$HOME", "SCALE=a b"])
def test_a_staged_target_with_a_wrong_option_runs_nothing(target, option, tmp_path):
    runs = tmp_path / "runs"
    made = subprocess.run(["make", "-j2", target, option, f"RUNS={runs}"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode != 0
    assert made.stdout == ""
    assert len(made.stderr.splitlines()) == 1
    assert f"found {option.split('=')[0]}=" in made.stderr
    assert not runs.exists()


def test_set_up_rejects_an_old_python_before_it_makes_an_environment(tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "python3.10"
    old.write_text(STUB.format(python=sys.executable))
    old.chmod(0o755)
    made = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0
    assert f"found Python 3.10.4 ({old}); expected 3.11 or later" in made.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(("recorded", "cleared"), [("another interpreter", True), (None, False)])
def test_set_up_makes_the_environment_anew_for_another_interpreter(recorded, cleared, tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv").mkdir()
    own = f"{sys.version.split()[0]} {sys.base_prefix}\n"
    (tmp_path / ".venv" / ".python").write_text(f"{recorded}\n" if recorded else own)
    (tmp_path / ".venv" / ".done").touch()
    command = ["make", "-n", "setup", f"PYTHON={sys.executable}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ("-m venv --clear .venv" in made.stdout) is cleared
    assert ("Nothing to be done" in made.stdout) is not cleared


def test_help_lists_every_target_that_has_a_description():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z_-]+):.*##", MAKEFILE, re.MULTILINE)
    assert [line.split()[0] for line in listed.splitlines()] == targets
    assert {"setup", "demo", "check", "test", "test-slow", "soak", "docs"} <= set(targets)
