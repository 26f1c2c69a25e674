"""A few faults of every kind are as promised, and no kind of them can pass by checking nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .catalog import CELLS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def python(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580, check=False)


def test_some_faults_of_every_kind_are_as_promised(tmp_path):
    done = python("tests.soak", "--count", 0.01, "--out", tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    cases = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    table = (tmp_path / "results.md").read_text().splitlines()[2:]
    assert len({case["cell"] for case in cases}) == len(table) == len(CELLS)
    assert all(case["injections"] > 0 for case in cases)
    assert all(row.split("|")[-3].strip() == "0" for row in table)


def test_every_kind_of_fault_is_reported_where_what_it_checks_is_broken(tmp_path):
    done = python("tests.soak.sabotage", "--out", tmp_path)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({case["cell"] for case in found}) == len(CELLS), done.stderr[-2000:]
    assert [case for case in found if not case["problems"]] == []
    assert done.returncode == 0


def test_a_soak_that_found_something_exits_with_1_and_names_the_command_that_shows_it_again(tmp_path):
    failed = {"cell": "steps", "seed": 0, "number": 0, "ok": False, "injected": "", "happened": "failed"}
    failed |= {"problems": ["losses differ at step 7"], "injections": 1, "counts": {}, "cpu": 1.0, "promise": ""}
    (tmp_path / "results.jsonl").write_text(json.dumps(failed) + "\n")
    done = python("tests.soak", "--faults", "steps", "--count", 0.01, "--out", tmp_path)  # that case alone, not again
    assert done.returncode == 1
    assert "--faults steps --seed 0 --only 0 --retry: losses differ at step 7" in done.stdout
