"""Every option of Lightning's trainer works as documented or is one line before anything runs."""

import inspect
import re
import sys
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import pytest
import yaml

from ssl_lightning.cli.trainer import LIMITS, duration
from ssl_lightning.entry import run
from ssl_lightning.errors import UsageError

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TINY = [
    *("fit", "--config", "demo", "--model.num_clusters", "16", "--model.backbone.width", "8"),
    *("--data.batch_size", "64", "--trainer.max_epochs", "1", "--data.num_workers", "0"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])


def ended(capsys, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and the lines of errors."""
    try:
        code = run([*TINY, *arguments])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert "Traceback" not in said, said
    return code, [line for line in said.splitlines() if "error:" in line]


def test_every_option_of_the_trainer_is_documented():
    section = PAGE.read_text().split("\n## Trainer\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set(inspect.signature(pl.Trainer).parameters)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(("text", "kind"), [("1", int), ("1.0", float), ("0.5", float), ("3", int)])
@pytest.mark.parametrize("in_a_file", [True, False])
def test_a_count_is_no_fraction(name, text, kind, in_a_file, capsys):
    Path("limit.yaml").write_text(f"trainer: {{{name}: {text}}}\n")
    given = ["--config", "limit.yaml"] if in_a_file else [f"--trainer.{name}", text]
    with pytest.raises(SystemExit):
        run([*TINY, *given, "--print_config="])
    value = yaml.safe_load(capsys.readouterr().out)["trainer"][name]
    assert (type(value), value) == (kind, kind(text))


REJECTED = {
    "overfit_batches": ["2", "0.5", "1.0"],
    "fast_dev_run": ["true", "3"],
    "barebones": ["true"],
    "use_distributed_sampler": ["true"],
    "precision": ["64-true", "64", "bf16-true", "16-true", "transformer-engine"],
    "gradient_clip_val": ["-1"],
    "log_every_n_steps": ["-5"],
    "check_val_every_n_epoch": ["0", "-1"],
    "max_epochs": ["0", "-2", "-1"],
    "max_steps": ["0", "-3"],
    "limit_train_batches": ["0", "0.0"],
    "max_time": ["12h", "1:2:3", "{hours: x}", "00:00:00:-5", "{minutes: -1}"],
    "accumulate_grad_batches": ["0", "-2"],
    "val_check_interval": ["0", "0.0", "-3"],
    "num_sanity_val_steps": ["-3"],
    "min_epochs": ["-1"],
    "min_steps": ["-1"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REJECTED.items() for value in values])
def test_what_has_no_meaning_is_rejected_before_a_folder_is_made(name, value, capsys):
    code, lines = ended(capsys, f"--trainer.{name}={value}")
    assert code in (2, 64)
    (line,) = lines
    assert name in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("01:02:03:04", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ({"minutes": 5}, timedelta(minutes=5)),
        (timedelta(hours=2), timedelta(hours=2)),
    ],
)
def test_a_time_limit_is_a_time(given, expected):
    assert duration(given) == expected


def test_another_time_limit_is_an_error():
    with pytest.raises(UsageError, match="expected DD:HH:MM:SS"):
        duration("soon")


def rows() -> list[str]:
    return Path("runs/demo-digits-s0/metrics.csv").read_text().splitlines()


def test_a_run_that_its_time_stops_is_not_finished_and_resumes_with_a_new_time(capsys):
    code, (line,) = ended(capsys, "--trainer.max_time", "00:00:00:00")
    assert code == 85
    assert "stopped by --trainer.max_time at step 1 " in line
    assert line.endswith("--trainer.max_time 00:00:00:00")
    folder = Path("runs/demo-digits-s0")
    assert not (folder / "done.json").exists()
    assert (folder / "checkpoints" / "last.ckpt").exists()
    code, _ = ended(capsys, "--trainer.max_time", "00:01:00:00", "--resume.policy", "must")
    assert code == 0
    assert (folder / "done.json").exists()


def test_one_callback_needs_no_list(capsys):
    Path("one.yaml").write_text("trainer: {callbacks: {class_path: EarlyStopping, init_args: {monitor: train/loss}}}\n")
    small = ["--model.backbone.width", "8", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]
    assert run(["fit", "--config", "simclr", "--config", "one.yaml", *small]) == 0
    assert "error" not in capsys.readouterr().err


def test_a_limit_above_the_number_of_batches_leaves_nothing_out(capsys, caplog):
    assert ended(capsys, "--trainer.limit_val_batches", "50", "--trainer.max_steps", "1") == (0, [])
    assert "do not compare these numbers" not in caplog.text


def test_a_monitored_evaluation_needs_one(capsys):
    callback = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "eval/knn/top1"]
    code, (line,) = ended(capsys, *callback, "--trainer.limit_val_batches", "0")
    assert code == 64
    assert "monitor=eval/knn/top1, but nothing is evaluated" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run.save_every_n_steps", "0"),
        ("run.save_every_n_steps", "-5"),
        ("model.optimizer.momentum", "9"),
        ("model.optimizer.momentum", "1.0"),
        ("model.optimizer.lr", ".nan"),
        ("model.optimizer.lr", ".inf"),
    ],
)
def test_rates_and_intervals_that_are_never_right_are_rejected(name, value, capsys):
    code, (line,) = ended(capsys, f"--{name}={value}", "--trainer.limit_val_batches", "0")
    assert code == 64
    assert f"found {name}={value.removeprefix('.')}" in line


@pytest.mark.parametrize("profiler", ["simple", "advanced"])
def test_a_profiler_reports(profiler, capsys, caplog):
    assert ended(capsys, "--trainer.profiler", profiler, "--trainer.max_steps", "1") == (0, [])
    assert "training_step" in caplog.text


def test_the_summary_of_the_network_is_logged(capsys, caplog):
    assert ended(capsys, "--trainer.enable_model_summary", "true", "--trainer.max_steps", "1") == (0, [])
    assert "backbone" in caplog.text


def test_no_rows_of_training_metrics(capsys):
    code, _ = ended(capsys, "--trainer.log_every_n_steps", "0", "--trainer.limit_train_batches", "3")
    assert code == 0
    assert "train/loss" not in rows()[0]


@pytest.mark.parametrize("interval", ["4", "1000"])
def test_an_interval_of_more_batches_than_an_epoch_has_is_rejected(interval, capsys):
    options = ["--trainer.limit_train_batches", "3", "--trainer.val_check_interval", interval]
    code, (line,) = ended(capsys, *options)
    assert code == 64
    assert f"val_check_interval {interval} and epochs of 3 batches" in line


@pytest.mark.parametrize(
    ("monitor", "expected"), [("val_loss", "train/loss"), ("eval/knn/top", "eval/knn/top1"), ("loss", "train/loss")]
)
def test_a_metric_that_no_run_has_is_rejected_before_the_first_step(monitor, expected, capsys):
    callback = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", monitor]
    code, (line,) = ended(capsys, *callback)
    assert code == 64
    assert f"monitor={monitor}" in line
    assert expected in line
    assert len(rows()) == 2  # names, and the untrained network


@pytest.mark.parametrize("monitor", ["eval/knn/top1", "train/loss"])
def test_a_metric_of_the_run_is_monitored(monitor, capsys):
    callback = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", monitor]
    code, lines = ended(capsys, *callback, "--trainer.limit_train_batches", "10")
    assert (code, lines) == (0, [])
