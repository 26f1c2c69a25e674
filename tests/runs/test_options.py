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
def test_another_learning_rate_and_decay_hold_after_a_resume_and_are_reported(schedule, tmp_path, monkeypatch, caplog):
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
    assert "the optimizer continues with other options: lr 0.1 -> 0.01; weight_decay 1e-05 -> 0.001" in caplog.text
    old, new = rates(tmp_path / "r")[:4], rates(tmp_path / "r")[4:]
    assert len(new) == 4
    assert max(new) <= 0.01 < max(old)
    last = torch.load(tmp_path / "r" / "checkpoints" / "last.ckpt", weights_only=True)
    groups = last["optimizer_states"][0]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {1e-3}
    caplog.clear()
    assert run([*first, *other, *more]) == 0
    assert "nothing to do" in caplog.text


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A command that has been carried out, and the folder that its runs live in."""
    folder = tmp_path_factory.mktemp("runs")
    command = ["fit", "--config", str(ROOT / "configs" / "swav.yaml"), *SMALL[4:], "--trainer.max_epochs", "1"]
    command += ["--model.num_prototypes", "8", "--model.hidden", "[16]", "--model.projection", "8"]
    command += ["--run.dir", str(folder)]
    argv, sys.argv = sys.argv, ["ssl-lightning"]
    assert run([*command, "--run.name", "r"]) == 0
    sys.argv = argv
    return command, folder


@pytest.mark.parametrize("way", ["the run itself", "another run"])
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            ["--model.decay_all", "true"],
            "with the state of another optimizer (model.init_args.decay_all False -> True)",
        ),
        (
            ["--model.optimizer", "torch.optim.AdamW"],
            "with the state of another optimizer (model.init_args.optimizer.",
        ),
        (["--model.backbone.width", "16"], "found backbone."),
        (["--model.num_prototypes", "9"], "found prototypes.weight (8, 8) instead of (9, 8) in"),
        (["--data", "SyntheticImages", "--data.samples", "1438"], "of other images (data.fingerprint)"),
    ],
)
def test_settings_that_a_checkpoint_does_not_fit_are_rejected_and_nothing_is_lost(
    changed, told, way, trained, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    command, folder = trained
    before = files(folder / "r")
    own = [*command, "--run.name", "r"]
    others = [*command, "--run.name", "s", "--ckpt_path", str(folder / "r" / "checkpoints" / "last.ckpt")]
    more = ["--trainer.max_epochs", "2", "--resume.allow_config_change", "true", *changed]
    assert run([*(own if way == "the run itself" else others), *more]) == 64
    assert told in capsys.readouterr().err
    assert files(folder / "r") == before
    assert run(own) == 0


def files(folder):
    """What each file of a run holds."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "LOCK"}
