"""The command line on two processes: it ends, and judges and clusters what one process judges and clusters."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ["--model.backbone.width", "8", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]


def fit(folder, name, *options):
    command = [sys.executable, "-m", "ssl_lightning", "fit", "--config", "configs/demo.yaml", *SHORT, *options]
    command += ["--trainer.accelerator", "cpu", "--run.dir", str(folder), "--run.name", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / name / "done.json").exists()
    with (folder / name / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_processes_end_and_see_before_training_what_one_sees(tmp_path):
    one, two = fit(tmp_path, "one"), fit(tmp_path, "two", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert [(row["step"], row["epoch"]) for row in one] == [(row["step"], row["epoch"]) for row in two]
    for name in (
        "eval/knn/top1",
        "eval/linear/top1",
        "eval/fewshot/5way1shot",
        "cluster/nmi_labels",
        "cluster/entropy",
    ):
        first = [next(row[name] for row in rows if row.get(name)) for rows in (one, two)]
        assert float(first[1]) == pytest.approx(float(first[0]), abs=0.01), name
