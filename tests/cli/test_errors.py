"""A failure of the package is a traceback and exit code 1; a mistake of the user is one line with a code of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_lightning.entry import run

ROOT = Path(__file__).parents[2]
TINY = [
    *("fit", "--config", "demo", "--model.num_clusters", "16", "--model.backbone.width", "8"),
    *("--data.batch_size", "16", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ssl-lightning"])
    monkeypatch.delenv("SSL_LIGHTNING_DEBUG", raising=False)


def ended(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command."""
    try:
        code = run(list(arguments))
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


def number(*_, **__):
    int("not a number")


def lengths(*_, **__):
    list(zip([1], [1, 2], strict=True))


def key(*_, **__):
    raise KeyError("missing")


MISSPELLED = ["--model.num_cluster", "5"]
PLACES = {
    "reading YAML": ("ssl_lightning.safe_yaml.check_yaml", []),
    "explaining a mistake": ("ssl_lightning.cli.parser.explain", MISSPELLED),
    "checking the command line": ("ssl_lightning.cli.checks.keep_inside", []),
    "the constructor of a part": ("ssl_lightning.evaluation.knn.KNN.__post_init__", []),
    "the constructor of the method": ("ssl_lightning.models.backbones.ResNet18.build", []),
    "parts of the trainer": ("ssl_lightning.cli.trainer.MetricsTable", []),
    "set-up": ("ssl_lightning.data.digits.Digits.open_training", []),
    "the state of a run": ("ssl_lightning.cli.fit.decide", []),
    "the optimizer": ("ssl_lightning.methods.method.Method.configure_optimizers", []),
    "clustering": ("ssl_lightning.clustering.kmeans.KMeans.__call__", []),
    "training": ("ssl_lightning.methods.DeepCluster.training_step", []),
    "evaluation": ("ssl_lightning.evaluation.knn.KNN.__call__", []),
}


@pytest.mark.parametrize("failure", [number, lengths, key], ids=lambda failure: failure.__name__)
@pytest.mark.parametrize(("place", "arguments"), PLACES.values(), ids=PLACES.keys())
def test_a_failure_of_the_package_is_a_traceback_and_asks_for_a_report(place, arguments, failure, monkeypatch, capsys):
    monkeypatch.setattr(place, failure)
    code, said = ended(capsys, *TINY, *arguments)
    assert code == 1
    assert "Traceback (most recent call last)" in said
    assert f"in {failure.__name__}" in said
    assert "please report it with the lines above" in said.splitlines()[-1]
    assert "ssl-lightning: error" not in said


def callback(name: str, arguments: str = "{}") -> list[str]:
    return ["--trainer.callbacks+", f"[{{class_path: {name}, init_args: {arguments}}}]"]


TENSORBOARD = ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "logs"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (MISSPELLED, 2, ["--model.num_cluster, which is not known there"]),
        (["--trainer.precision", "7"], 2, ["trainer.precision"]),
        (["--data.batch_size", "1"], 64, ["data.batch_size=1"]),
        (["--model.optimizer.lr", "-1"], 64, ["found model.optimizer", "Invalid learning rate"]),
        (["--trainer.strategy", "nonsense"], 64, ["found trainer.strategy", "Lightning rejects", "nonsense"]),
        (["--trainer.devices", "nonsense"], 64, ["found trainer.devices", "int > 0"]),
        (
            callback("EarlyStopping", "{monitor: train/loss, mode: odd}"),
            64,
            ["found trainer.callbacks.", "EarlyStopping"],
        ),
        (["--trainer.callbacks+", "[{class_path: DeviceStatsMonitor, dict_kwargs: {odd: 1}}]"], 64, ["'odd'"]),
        (TENSORBOARD, 64, ["found no package", "install it: pip install ", "[tensorboard]'"]),
        (["--model.optimizer", "torch.optim.Adagrad", "--model.optimizer.eps", "-1"], 64, ["found model.optimizer"]),
        (["--data", "CuratedImages", "--data.path", "nowhere"], 65, ["nowhere"]),
        (["--ckpt_path", "nowhere.ckpt"], 65, ["nowhere.ckpt"]),
        (["--run.start_from", "nowhere.ckpt"], 65, ["nowhere.ckpt"]),
        (["--model.num_clusters", "5000"], 64, ["k=5000"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else str(value),
)
def test_a_mistake_of_the_user_is_one_line_with_the_code_of_its_type(arguments, code, words, capsys):
    found, said = ended(capsys, *TINY, *arguments)
    lines = [line for line in said.splitlines() if line.startswith("ssl-lightning: error: ")]
    assert (found, len(lines)) == (code, 1), said
    assert "Traceback" not in said
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize("mistake", [MISSPELLED, ["--data.batch_size", "1"], ["--ckpt_path", "nowhere.ckpt"]])
def test_the_environment_requests_the_traceback_of_a_mistake(mistake, monkeypatch, capsys):
    monkeypatch.setenv("SSL_LIGHTNING_DEBUG", "1")
    code, said = ended(capsys, *TINY, *mistake)
    assert code in (2, 64, 65)
    assert "Traceback (most recent call last)" in said
    assert said.splitlines()[-1].startswith("ssl-lightning: error: ")


RENAMED = {"flip": "horizontal_flip", "jitter": "color_jitter", "blur": "gaussian_blur", "rotate": "degrees"}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_a_development_version_is_named_with_its_present_name(old, new, capsys):
    Path("old.yaml").write_text(f"data: {{init_args: {{views: [{{{old}: 0.5}}]}}}}\n")
    code, said = ended(capsys, *TINY, "--config", "old.yaml")
    assert code == 2
    assert f"data.init_args.views.0.{old} in old.yaml" in said
    assert f"expected {new}" in said


def test_a_class_of_a_development_version_is_named_with_its_present_name(capsys):
    code, said = ended(capsys, *TINY, "--model.schedule", "ssl_lightning.optim.Drops")
    assert code == 2
    assert "Drops is named MultiStep now" in said


def test_a_checkpoint_of_a_development_version_is_one_line_that_says_so(capsys):
    schedule = {"class_path": "ssl_lightning.optim.Drops", "init_args": {"epochs": [1.0]}}
    described = {"class_path": "ssl_lightning.methods.SimCLR", "init_args": {"schedule": schedule}}
    torch.save({"state_dict": {}, "hyper_parameters": described}, "old.ckpt")
    code, said = ended(capsys, "validate", "--config", "eval", "--data", "Digits", "--ckpt_path", "old.ckpt")
    (line,) = (line for line in said.splitlines() if line.startswith("ssl-lightning: error: "))
    assert code == 65
    assert "found old.ckpt, which a development version wrote (Drops -> MultiStep)" in line


@pytest.mark.parametrize("command", [["config"], ["config", "swav"], ["fit", "--config", "swav", "--print_config"]])
def test_a_pipe_with_an_ended_reader_is_no_failure(command):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        program = [sys.executable, "-m", "ssl_lightning", *command]
        ended = subprocess.run(program, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 141
    assert ended.stderr in ("", f"--config swav: {ROOT / 'configs' / 'swav.yaml'}\n")
