"""A run that goes on with other settings: what they say about the optimizer holds from the first step."""

import csv
import logging
import sys
from pathlib import Path

import pytest
import torch

from ssl_lightning.entry import run

ROOT = Path(__file__).parents[2]
SMALL = [
    *("--config", "configs/demo.yaml", "--model.num_clusters", "8", "--data.batch_size", "512"),
    *("--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8"),
    *("--trainer.limit_val_batches=0", "--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu"),
]
"""Two steps an epoch."""


def rates(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/lr"]) for row in csv.DictReader(file) if row.get("train/lr")]


@pytest.mark.parametrize("schedule", [[], ["--model.schedule", "WarmupCosine", "--model.schedule.warmup_epochs", "1"]])
def test_another_learning_rate_and_decay_hold_after_a_resume_and_are_told(schedule, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    caplog.set_level(logging.INFO, logger="ssl_lightning")
    first = ["fit", *SMALL, *schedule, "--run.dir", str(tmp_path), "--run.name", "r"]
    optimizer = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.momentum", "0.9"]
    assert run([*first, *optimizer, "--model.optimizer.lr", "0.1", "--trainer.max_epochs", "2"]) == 0
    other = [*optimizer, "--model.optimizer.lr", "0.01", "--model.optimizer.weight_decay", "1e-3"]
    more = ["--trainer.max_epochs", "4", "--resume.allow_config_change", "true"]
    assert run([*first, *other, *more]) == 0
    assert "model.init_args.optimizer.init_args.lr 0.1 -> 0.01" in caplog.text
    assert "the optimizer goes on with other options: lr 0.1 -> 0.01; weight_decay 1e-05 -> 0.001" in caplog.text
    old, new = rates(tmp_path / "r")[:4], rates(tmp_path / "r")[4:]
    assert len(new) == 4
    assert max(new) <= 0.01 < max(old)
    last = torch.load(tmp_path / "r" / "checkpoints" / "last.ckpt", weights_only=True)
    groups = last["optimizer_states"][0]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {1e-3}
    caplog.clear()
    assert run([*first, *other, *more]) == 0
    assert "nothing to do" in caplog.text


def test_settings_that_need_other_groups_of_parameters_are_refused_by_number(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    first = [
        "fit",
        "--config",
        "configs/swav.yaml",
        *SMALL[4:],
        "--model.num_prototypes",
        "8",
        "--model.hidden",
        "[16]",
    ]
    first += ["--model.projection", "8", "--model.queue_length", "0", "--trainer.max_epochs", "1"]
    first += ["--run.dir", str(tmp_path), "--run.name", "r"]
    assert run(first) == 0
    more = ["--trainer.max_epochs", "2", "--resume.allow_config_change", "true", "--model.decay_all", "true"]
    assert run([*first, *more]) == 64
    assert "found [1] groups of parameters, and [2] in the checkpoint" in capsys.readouterr().err
