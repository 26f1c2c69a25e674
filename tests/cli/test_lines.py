"""The first and the last lines of a training run, and the accuracy of raw pixels in its table."""

import csv
import json
import sys
from pathlib import Path

import pytest

from ssl_lightning.cli.lines import last_lines
from ssl_lightning.entry import run

SMALL = ["--model.backbone.width", "8", "--data.batch_size", "64", "--trainer.accelerator", "cpu"]
DATA = ["--config", "data/synthetic", "--data.samples", "150", "--data.test_samples", "60", "--data.num_workers", "0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of two epochs, what it logged, and what it printed."""
    folder = tmp_path_factory.mktemp("lines")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ssl-lightning"])
        yield folder


@pytest.fixture
def command(trained):
    return ["fit", "--config", "simclr", *DATA, *SMALL, "--trainer.max_epochs", "2", "--run.name", "a"]


def test_a_run_logs_what_it_is_and_what_came_out_of_it(command, caplog, capsys):
    with caplog.at_level("INFO"):
        assert run([*command, "--trainer.limit_train_batches", "1"]) == 0
    logged = caplog.messages
    for line in (
        "150 images at 32 px, probe sets: synthetic",
        "2 epochs of 1 step of 64 images",
        "cpu, precision 32-true, writing to runs/a",
        "evaluating the untrained network",
    ):
        assert line in logged, logged
    assert any(
        line.startswith("SimCLR with ResNet18 of width 8, 0.") and line.endswith("parameters") for line in logged
    )
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == ["eval on synthetic", "raw pixels", "untrained", "step 2"]
    assert "training diagnostics: no failure" in lines
    assert "clusters and curves: runs/a/report/index.html" in lines
    assert lines[-1] == "next: ssl-lightning embed runs/a/checkpoints/last.ckpt runs/a-features.safetensors"


def test_the_next_command_works(trained):
    assert run(["embed", "runs/a/checkpoints/last.ckpt", "runs/a-features.safetensors"]) == 0
    assert Path("runs/a-features.safetensors").is_file()


def test_raw_pixels_are_those_of_validate(trained):
    """The method RawPixels is an independent reference: it keeps its pixels in float32 and computes them anew."""
    options = [*DATA, "--trainer.accelerator", "cpu", "--run.name", "pixels", "--config", "eval"]
    assert run(["validate", "--model", "RawPixels", *options]) == 0
    expected = json.loads(Path("runs/pixels/results.json").read_text())["eval/knn/top1"]
    with Path("runs/a/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [row["eval/knn_raw_pixels/top1"] for row in rows if row["eval/knn_raw_pixels/top1"]]
    assert [float(value) for value in found] == [pytest.approx(expected, abs=0.02)]
    assert rows[0]["step"] == "0"


def test_without_probes_there_is_no_baseline_and_no_warning(trained, command, capsys):
    options = ["--trainer.callbacks", "null", "--run.name", "b", "--trainer.max_epochs", "1"]
    assert run([*command, *options]) == 0
    output = capsys.readouterr().out
    assert "raw pixels" not in output
    assert "warning" not in output


TABLE = """step,epoch,eval/knn/top1,eval/linear/top1,eval/knn_raw_pixels/top1,eval/b/knn/top1,eval_ema/knn/top1
0,0,0.40,0.30,0.36,0.2,
10,0,0.35,0.31,,0.3,0.5
"""


def test_a_network_below_where_it_started_or_below_pixels_is_a_warning(tmp_path):
    (tmp_path / "metrics.csv").write_text(TABLE)
    lines = last_lines(tmp_path, tmp_path / "last.ckpt", ["rank_one", "one_cluster"])
    assert lines[:3] == [
        "warning: k-NN 20 of the trained network, 35.0, is below that of the untrained network, 40.0",
        "warning: k-NN 20 of the trained network, 35.0, is below that of raw pixels, 36.0",
        "training diagnostics: rank_one, one_cluster",
    ]


def test_a_start_from_trained_weights_is_named(tmp_path):
    (tmp_path / "metrics.csv").write_text(TABLE)
    (tmp_path / "run.json").write_text(json.dumps({"initial_weights": {"path": "other.ckpt"}}))
    assert "below that of the start network" not in last_lines(tmp_path, tmp_path / "last.ckpt", [])[0]
    assert "below that of the starting weights, 40.0" in last_lines(tmp_path, tmp_path / "last.ckpt", [])[0]


@pytest.mark.parametrize("rows", ["", "0,0,0.4,0.3,0.36,0.2,\n"])
def test_a_run_without_a_second_evaluation_has_no_warning(tmp_path, rows):
    (tmp_path / "metrics.csv").write_text(TABLE.splitlines()[0] + "\n" + rows)
    assert not any("warning" in line for line in last_lines(tmp_path, tmp_path / "last.ckpt", []))
