"""A run through the real command line, in a process of its own, with or without a fault."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OPTIONS = [
    *("--model.backbone", "lab.DropoutNet", "--model.backbone.width", "32"),
    *("--data.batch_size", "128"),
    *("--trainer.max_epochs", "4"),
    *("--trainer.check_val_every_n_epoch", "2"),
    *("--trainer.log_every_n_steps", "3"),
    *("--trainer.enable_progress_bar", "false"),
    *("--run.save_every_n_steps", "4"),
]


DEMO = ("--config", "configs/demo.yaml", "--model.num_clusters", "12")


class Runs:
    """Starts runs in one folder and reads what they leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fit(
        self, name: str, fault: str = "none", extra: tuple[str, ...] = (), what: tuple[str, ...] = DEMO
    ) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
            "SSL_LIGHTNING_PLUGINS": "lab",
            "FAULTY_LOSSES": str(self.folder / f"{name}.txt"),
            "TMPDIR": "/dev/shm",  # another file system than the run's
        }
        command = [
            sys.executable,
            str(HERE / "faulty.py"),
            fault,
            "fit",
            *what,
            *OPTIONS,
            "--run.dir",
            str(self.folder),
        ]
        return subprocess.run(
            [*command, "--run.name", name, *extra],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def checkpoint(self, name: str) -> dict:
        return torch.load(self.folder / name / "checkpoints" / "last.ckpt", weights_only=True)

    def steps(self, name: str) -> dict[str, set[str]]:
        """Loss bits and rows of every step, from all processes that worked on the run."""
        found: dict[str, set[str]] = {}
        for line in (self.folder / f"{name}.txt").read_text().splitlines():
            step, rest = line.split(" ", 1)
            found.setdefault(step, set()).add(rest)
        return found

    def rows(self, name: str) -> list[dict[str, str]]:
        """The metrics table without what measures time."""
        with (self.folder / name / "metrics.csv").open(newline="") as file:
            return [{key: value for key, value in row.items() if "second" not in key} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def whole(runs) -> str:
    """A run that nothing interrupted."""
    done = runs.fit("whole")
    assert done.returncode == 0, done.stderr
    return "whole"


def differences(a, b, where: str = "") -> list[str]:
    """Where two nested containers differ in any bit: empty for equal ones."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [f"{where}: tensors differ"]
    if isinstance(a, dict) and isinstance(b, dict):
        only = [f"{where}/{key}: in one alone" for key in a.keys() ^ b.keys()]
        return only + [line for key in a.keys() & b.keys() for line in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple) and len(a) == len(b):
        return [line for n, (x, y) in enumerate(zip(a, b, strict=True)) for line in differences(x, y, f"{where}/{n}")]
    return [] if a == b else [f"{where}: {a!r} and {b!r}"]
