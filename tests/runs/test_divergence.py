"""Training that overflows: exit code 70 and one line wherever it shows first, in no checkpoint."""

import sys
from pathlib import Path

import pytest
import torch

from ssl_lightning.entry import run

ROOT = Path(__file__).parents[2]
SMALL = [
    *(
        "--config",
        str(ROOT / "configs" / "deepcluster.yaml"),
        "--config",
        str(ROOT / "configs" / "data" / "digits.yaml"),
    ),
    *("--model.backbone.width", "8", "--model.num_clusters", "20", "--trainer.precision", "32-true"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--run.name", "r"),
]


OFTEN, SELDOM = "1", "10"


@pytest.mark.parametrize(
    ("rate", "evaluations", "saved", "first_shows"),
    [
        ("1000", OFTEN, OFTEN, "features of digits"),
        ("1e4", SELDOM, OFTEN, "numbers in backbone"),
        ("1e4", SELDOM, SELDOM, "features to cluster"),
    ],
)
def test_running_statistics_overflow_before_the_loss(
    rate, evaluations, saved, first_shows, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    command = ["fit", *SMALL, "--run.dir", str(tmp_path), "--trainer.max_epochs", "3", "--model.optimizer.lr", rate]
    command += ["--trainer.check_val_every_n_epoch", evaluations, "--run.save_every_n_epochs", saved]
    assert run(command) == 70
    assert f"found {first_shows}" in capsys.readouterr().err.strip().splitlines()[-1]
    for path in (tmp_path / "r" / "checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in state.values() if isinstance(tensor, torch.Tensor))
