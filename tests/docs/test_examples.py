"""The examples of docs/extending.md: all of them in one run, as a reader gives the command."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ssl_lightning.runs.metrics import read_rows
from tests.docs.pages import ROOT, calls, in_this_version, runnable

EXAMPLES = ROOT / "docs" / "examples"
SMALL = "--trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1 --trainer.accelerator cpu --model.num_clusters 20"


@pytest.fixture
def folder(tmp_path):
    """The examples and the digits as arrays in a file."""
    here = tmp_path / "docs" / "examples"
    here.mkdir(parents=True)
    for path in (path for path in EXAMPLES.iterdir() if path.is_file()):
        (here / path.name).write_text(in_this_version(path.read_text()))
    digits = load_digits()
    images = np.repeat((digits.images * 255 / 16).astype(np.uint8)[..., None], 3, axis=3)
    splits = {"train": slice(0, 600), "test": slice(600, 900)}
    arrays = {name: images[rows] for name, rows in splits.items()}
    labels = {f"{name}_labels": digits.target[rows] for name, rows in splits.items()}
    np.savez(tmp_path / "images.npz", **arrays, **labels)
    return tmp_path


def test_the_examples_run_together(folder):
    (block,) = [block for block in runnable(ROOT / "docs" / "extending.md") if block.language == "bash"]
    ((program, *arguments),) = calls(block, folder)
    assert program == "ssl-lightning"
    exported = dict(line.removeprefix("export ").split("=") for line in block.text.splitlines() if "export" in line)
    path = os.pathsep.join([str(ROOT), exported["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "ssl_lightning", *arguments, *SMALL.split()],
        cwd=folder,
        env=os.environ | exported | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_rows(folder / "runs" / "my-run" / "metrics.csv")
    assert [row for row in rows if row.get("eval/nearest_mean/top1")]
    assert [row for row in rows if row.get("cluster/nmi_labels")]


def test_every_example_is_on_the_page():
    text = (ROOT / "docs" / "extending.md").read_text()
    files = [path for path in EXAMPLES.iterdir() if path.is_file()]
    assert len(files) == 6
    assert [path.name for path in files if f"{{literalinclude}} examples/{path.name}" not in text] == []
    assert all(Path(path).stem in text for path in files)
