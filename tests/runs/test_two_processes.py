"""The command line on two processes: it ends, and judges and clusters what one process judges and clusters."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_lightning.checkpoints import read_checkpoint

from .conftest import differences

ROOT = Path(__file__).parents[2]
SHORT = ["--model.backbone.width", "8", "--trainer.max_epochs", "1"]


def fit(folder, name, *options, config=("--config", "configs/demo.yaml", *SHORT), after=()):
    command = [sys.executable, "-m", "ssl_lightning", "fit", *config, *options, *after]
    command += [
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.accelerator",
        "cpu",
        "--run.dir",
        str(folder),
        "--run.name",
        name,
    ]
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


SEER = [
    *("--config", "configs/seer.yaml", "--model.backbone.name", "regnety_002", "--model.hidden", "[32]"),
    *("--model.backbone.activation_checkpointing", "true", "--model.projection", "16"),
    *("--model.num_prototypes", "32", "--data.image_size", "16", "--data.batch_size", "64"),
    *("--model.queue_length", "128", "--model.queue_start_epoch", "0"),
    *("--trainer.max_epochs", "-1", "--trainer.max_steps", "8", "--trainer.val_check_interval", "6"),
    *("--trainer.log_every_n_steps", "2", "--trainer.devices", "2", "--run.save_every_n_steps", "3"),
]
SHARDED = """
trainer:
  strategy:
    class_path: lightning.pytorch.strategies.ModelParallelStrategy
    init_args: {data_parallel_size: 2, tensor_parallel_size: 1, save_distributed_checkpoint: false}
"""


def forget_the_last_checkpoint(run: Path) -> None:
    """As if the machine had died just before it."""
    newest, older = sorted((run / "checkpoints").glob("step-*.ckpt"), reverse=True)
    (run / "done.json").unlink()
    newest.with_suffix(".json").unlink()
    newest.unlink()
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "checkpoints" / "last.ckpt").symlink_to(older.name)


@pytest.mark.slow
def test_sharded_parameters_learn_what_replicated_ones_do_and_both_resume(tmp_path):
    strategies = {"replicated": "trainer: {strategy: ddp}", "sharded": SHARDED}
    rows, weights = {}, {}
    for name, overlay in strategies.items():
        (tmp_path / f"{name}.yaml").write_text(overlay)
        again = {"config": [], "after": ["--config", str(tmp_path / f"{name}.yaml")]}
        rows[name] = fit(tmp_path, name, *SEER, **again)
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        weights[name] = read_checkpoint(last)["state_dict"]
        forget_the_last_checkpoint(tmp_path / name)
        for before, after in zip(rows[name], fit(tmp_path, name, *SEER, **again), strict=True):
            assert [name for name in before if "second" not in name and after[name] != before[name]] == []
        assert not differences(read_checkpoint(last)["state_dict"], weights[name])
    for before, after in zip(rows["replicated"], rows["sharded"], strict=True):
        for name, value in before.items():
            tolerance = 0.02 if name.startswith("eval/") else 1e-5
            if value and "second" not in name:
                assert float(after[name]) == pytest.approx(float(value), abs=tolerance), name
    for name, value in weights["replicated"].items():
        if isinstance(value, torch.Tensor):
            assert torch.allclose(weights["sharded"][name].double(), value.double(), atol=1e-4), name
