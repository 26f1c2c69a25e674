"""Weights & Biases with the real client, offline: what its files hold, and that nothing stops or delays a run."""

import json
import logging
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from ssl_lightning.entry import run
from ssl_lightning.report.cluster_rows import COLUMNS
from ssl_lightning.runs import WandbRun
from ssl_lightning.runs.best_checkpoint import BestCheckpoint
from ssl_lightning.runs.external_logger import RunIdentity
from ssl_lightning.runs.row_numbers import BLOCK, RowNumbers
from ssl_lightning.runs.wandb import STEP

from .wandb_files import read_run, table

CONFIG = {"model": {"init_args": {"widths": [8, 16], "lr": 0.1, "bias": None}}, "dataset": {"images": 90}}


@pytest.fixture(autouse=True)
def without_account(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)


def identity(folder, name="swav-digits-s1"):
    return RunIdentity(folder / name, name, "ab12cd34", "swav-digits", "SwAV")


def start(folder, **options):
    logger = WandbRun(**options)
    logger.settle(identity(folder))
    logger.log_config(CONFIG)
    return logger


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two sessions: the second repeats the rows from step 10 on."""
    root = tmp_path_factory.mktemp("runs")
    image = root / "sheet.png"
    Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        first = start(root, entity="team", project="p", tags=["a", "b"], notes="why")
        first.alert("one_cluster", "all images are in one cluster")
        for step, top1 in ((0, 0.5), (10, 0.9), (20, 0.7)):
            first.log_metrics({"eval/knn/top1": top1, "train/loss": 1.0 / (step + 1)}, step)
        first.close(succeeded=False)
        time.sleep(1.1)  # the folder of a session has its second in its name
        second = start(root, group="g", job_type="j")
        second.alert("one_cluster", "all images are in one cluster")
        second.use_artifacts(["team/p/x:v0"])  # needs a connection, which is no failure
        for step, top1 in ((10, 0.9), (20, 0.7), (30, 0.8)):
            second.log_metrics({"eval/knn/top1": top1}, step)
        second.log_image("report/curves", image)
        second.log_table("clusters", COLUMNS, [[3, 7, 0.5, "cat", image], [1, 2, None, "", None]])
        second.log_array("assignments", np.arange(5), {"step": 30})
        second.log_tensors("backbone", {"conv1.weight": torch.arange(3.0)}, {"step": 30, "backbone": "ResNet18"})
        second.log_summary({"eval/knn/top1": 0.8, "best/eval/knn/top1": 0.9, "best/eval/knn/top1/step": 10})
        second.close(succeeded=True)
    return root / "swav-digits-s1"


def test_the_files_of_the_client_can_be_read(folder):
    """The canary of the reader: records of wandb are private."""
    sessions = read_run(folder)
    assert len(sessions) == 2
    assert all(session.is_finished and session.run.run_id == "ab12cd34" for session in sessions)


def test_the_options_and_the_identity_of_a_run_are_those_of_its_run_there(folder):
    first, second = (session.run for session in read_run(folder))
    assert (first.entity, first.project, first.display_name) == ("team", "p", "swav-digits-s1")
    assert (first.run_group, first.job_type, list(first.tags), first.notes) == (
        "swav-digits",
        "SwAV",
        ["a", "b"],
        "why",
    )
    assert (second.project, second.run_group, second.job_type) == ("ssl_lightning", "g", "j")


def test_the_configuration_stays_nested(folder):
    held = read_run(folder)[0].config
    assert {name: held[name] for name in CONFIG} == CONFIG


def test_the_sessions_of_a_run_are_one_curve(folder):
    """The step is a value, and the numbers of rows grow: `wandb sync` appends the rows of a resumed run."""
    sessions = read_run(folder)
    assert [metric.step_metric for metric in sessions[1].metrics] == ["trainer/global_step"]
    assert sessions[1].run.resume
    rows = [row for session in sessions for row in session.rows if "eval/knn/top1" in row]
    numbers = [row["_step"] for row in rows]
    assert numbers == sorted(set(numbers))
    curve = {}
    for row in rows:
        assert curve.setdefault(row["trainer/global_step"], row["eval/knn/top1"]) == row["eval/knn/top1"]
    assert curve == {0: 0.5, 10: 0.9, 20: 0.7, 30: 0.8}


def test_the_summary_holds_the_last_and_the_best_value(folder):
    summary = read_run(folder)[1].summary
    best = (summary["best/eval/knn/top1"], summary["best/eval/knn/top1/step"])
    assert (summary["eval/knn/top1"], *best) == (0.8, 0.9, 10)


def test_a_table_holds_its_images(folder):
    held = table(folder, "clusters")
    assert held["columns"] == list(COLUMNS)
    (artifact,) = read_run(folder)[1].artifact("run_table")
    images = [file for file in artifact.manifest.contents if file.path.endswith("sheet.png")]
    assert images
    assert all(file.local_path.startswith(str(folder)) for file in artifact.manifest.contents)


def test_a_failure_is_one_alert_also_after_a_resume(folder):
    first, second = read_run(folder)
    assert first.alerts == [("one_cluster in swav-digits-s1", "all images are in one cluster")]
    assert second.alerts == []


def test_the_files_of_artifacts_are_in_the_folder_of_the_run(folder):
    (artifact,) = read_run(folder)[1].artifact("assignments")
    assert artifact.name == "assignments-swav-digits-s1"
    assert "last" in artifact.aliases
    assert json.loads(artifact.metadata) == {"step": 30}
    (file,) = artifact.manifest.contents
    assert file.local_path == str(folder / "wandb" / "assignments.npy")
    assert np.load(file.local_path).tolist() == list(range(5))


def test_the_backbone_is_a_file_of_tensors_with_its_description(folder):
    (artifact,) = read_run(folder)[1].artifact("backbone")
    assert json.loads(artifact.metadata) == {"step": 30, "backbone": "ResNet18"}
    (file,) = artifact.manifest.contents
    with safe_open(file.local_path, "pt") as held:
        assert held.get_tensor("conv1.weight").tolist() == [0.0, 1.0, 2.0]
        assert json.loads(held.metadata()["facts"]) == {"step": 30, "backbone": "ResNet18"}


def test_the_environment_is_as_before(folder, monkeypatch):
    import os

    assert not {"WANDB_DATA_DIR", "WANDB_CACHE_DIR"} & set(os.environ)


# what can go wrong


class Client:
    """The used part of a run of wandb."""

    offline, step = True, 0

    def __init__(self, log):
        self.log = log
        self.config = {}

    def define_metric(self, *arguments, **options):
        pass

    def finish(self, exit_code):
        pass


def with_client(monkeypatch, log):
    monkeypatch.setattr("wandb.init", lambda **_: Client(log))


def test_a_missing_client_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    logger = start(tmp_path)
    for step in range(3):
        logger.log_metrics({"x": 1.0}, step)
    logger.close(succeeded=True)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Weights & Biases stopped working" in caplog.text


@pytest.mark.parametrize("error", [OSError("disk is full"), SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_a_client_that_raises_is_one_warning(tmp_path, monkeypatch, caplog, error):
    def log(*arguments, **options):
        raise error

    with_client(monkeypatch, log)
    logger = start(tmp_path)
    for step in range(3):
        logger.log_metrics({"x": 1.0}, step)
    logger.close(succeeded=True)
    assert len(caplog.records) == 1
    assert "Weights & Biases stopped working" in caplog.text


def test_an_artifact_that_fails_does_not_stop_the_rows(tmp_path, monkeypatch, caplog):
    rows = []
    with_client(monkeypatch, lambda row, **options: rows.append(row))
    logger = start(tmp_path)
    logger.log_files("checkpoint", [tmp_path / "missing.ckpt"], {})
    logger.log_image("report/curves", tmp_path / "missing.png")
    logger.log_metrics({"x": 1.0}, 3)
    logger.close(succeeded=True)
    assert rows == [{"x": 1.0, STEP: 3}]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("Weights & Biases did not take the artifact checkpoint-swav-digits-s1 (")


def test_a_client_that_hangs_costs_no_time_while_training_and_a_limited_time_at_the_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ssl_lightning.runs.wandb.FINISH_TIMEOUT", 0.2)
    monkeypatch.setattr("ssl_lightning.runs.background.MOST_WAITING", 50)
    forever = threading.Event()
    with_client(monkeypatch, lambda *arguments, **options: forever.wait(60))
    logger = start(tmp_path)
    begin = time.monotonic()
    for step in range(100):
        logger.log_metrics({"x": 1.0}, step)
    assert time.monotonic() - begin < 5
    logger.close(succeeded=True)
    assert time.monotonic() - begin < 10
    forever.set()
    assert sum("too many calls are waiting" in record.getMessage() for record in caplog.records) == 1


def test_no_run_waits_for_the_last_uploads(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ssl_lightning.runs.wandb.FINISH_TIMEOUT", 0.2)
    forever = threading.Event()
    with_client(monkeypatch, lambda *arguments, **options: None)
    monkeypatch.setattr(Client, "finish", lambda *arguments, **options: forever.wait(60))
    logger = start(tmp_path)
    begin = time.monotonic()
    logger.close(succeeded=True)
    assert time.monotonic() - begin < 10
    assert "`wandb sync` sends the rest" in caplog.text
    forever.set()


def test_a_client_that_does_not_start_delays_the_run_for_a_limited_time(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ssl_lightning.runs.wandb.START_WAIT", 0.2)
    monkeypatch.setattr("ssl_lightning.runs.wandb.FINISH_TIMEOUT", 0.2)
    forever = threading.Event()
    monkeypatch.setattr("wandb.init", lambda **_: forever.wait(60))
    begin = time.monotonic()
    logger = start(tmp_path)
    logger.log_metrics({"x": 1.0}, 1)
    logger.close(succeeded=True)
    assert time.monotonic() - begin < 10
    forever.set()
    assert "training starts without it" in caplog.text


@pytest.mark.parametrize("text", [None, "", "x", "7"])
def test_the_numbers_of_rows_grow_over_sessions_that_are_killed(tmp_path, text):
    path = tmp_path / "wandb" / "rows"
    if text is not None:
        path.parent.mkdir()
        path.write_text(text)
    first = RowNumbers(path)
    numbers = [first.take() for _ in range(BLOCK + 5)]
    assert numbers[0] == (7 if text == "7" else 0)
    killed = RowNumbers(path)
    numbers += [killed.take(), killed.take(at_least=1000)]
    killed.release()
    numbers += [RowNumbers(path).take()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 1001


def test_after_a_kill_the_last_rows_are_logged_again(tmp_path, monkeypatch):
    rows = []
    with_client(monkeypatch, lambda row, step, commit: rows.append(row))
    (tmp_path / "swav-digits-s1").mkdir()
    (tmp_path / "swav-digits-s1" / "metrics.csv").write_text("step,epoch,x,y\n3,0,0.5,\n6,1,,2\n9,1,7,\n")
    start(tmp_path).log_metrics({"x": 0.5}, 3)  # and a kill
    until = time.monotonic() + 10
    while not rows and time.monotonic() < until:
        time.sleep(0.01)
    for expected in ([{"epoch": 0.0, "x": 0.5, STEP: 3}, {"epoch": 1.0, "y": 2.0, STEP: 6}], []):
        rows.clear()
        logger = start(tmp_path)
        logger.resume_after(6)
        logger.close(succeeded=True)
        assert rows == expected  # of the second session, which has ended, nothing is lost


# the best checkpoint


def write_checkpoint(folder, step):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    for suffix in ("json", "ckpt"):
        (folder / "checkpoints" / f"step-{step}.{suffix}").write_text(f"{suffix} {step}")


def delete_checkpoint(folder, step):
    for suffix in ("json", "ckpt"):
        (folder / "checkpoints" / f"step-{step}.{suffix}").unlink()


def test_the_best_checkpoint_outlives_its_deletion(tmp_path):
    best = BestCheckpoint(tmp_path, tmp_path / "wandb" / "best")
    assert best.files == []
    for step, top1 in ((0, 0.95), (10, 0.5), (20, 0.9), (30, 0.7), (40, float("nan"))):
        best.update({"eval/knn/top1": top1, "eval/linear/top1": top1, "eval/b/linear/top1": -top1}, step)
        if step:
            write_checkpoint(tmp_path, step)
        if step > 10:
            delete_checkpoint(tmp_path, step - 10)
    assert [path.read_text() for path in best.files] == ["ckpt 20", "json 20"]
    assert best.step == 20


def test_a_resumed_run_knows_the_best_checkpoint_of_its_earlier_session(tmp_path):
    lines = ["step,epoch,eval/knn/top1", "10,0,0.5", "20,1,0.9", "30,2,0.8"]
    best = BestCheckpoint(tmp_path, tmp_path / "best")
    write_checkpoint(tmp_path, 10)
    best.update({"eval/knn/top1": 0.5}, 10)
    assert best.step == 10
    (tmp_path / "metrics.csv").write_text("\n".join(lines[:3]) + "\n")
    write_checkpoint(tmp_path, 20)  # and then a kill, before anything was linked
    assert BestCheckpoint(tmp_path, tmp_path / "best").step == 20
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    write_checkpoint(tmp_path, 30)
    resumed = BestCheckpoint(tmp_path, tmp_path / "best")
    assert resumed.step == 20
    resumed.update({"eval/knn/top1": 0.95}, 40)
    write_checkpoint(tmp_path, 40)
    assert resumed.step == 40


# whole runs


OPTIONS = [
    *("--config", "configs/demo.yaml", "--config", "configs/shared/wandb.yaml"),
    *("--model.backbone", "ssl_lightning.models.ResNet18", "--model.backbone.width", "8"),
    *("--data.batch_size", "128", "--trainer.max_epochs", "3", "--model.num_clusters", "12"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
]


def test_a_run_offline_holds_its_configuration_results_tables_and_artifacts(tmp_path):
    assert run(["fit", *OPTIONS, "--run.dir", str(tmp_path), "--run.name", "swav-digits-s0"]) == 0
    folder = tmp_path / "swav-digits-s0"
    (held,) = read_run(folder)
    assert (held.run.run_group, held.run.job_type) == ("swav-digits", "DeepCluster")
    assert held.config["model"]["init_args"]["num_clusters"] == 12
    assert held.config["method"] == "DeepCluster"
    assert held.config["dataset"]["images"] == 1438
    assert held.config["parameters"]["total"] > held.config["parameters"]["backbone"] > 10_000
    assert not [name for name in held.config if "." in name]
    assert held.summary["best/eval/linear/top1"] >= held.summary["eval/linear/top1"]
    assert {"eval/knn_raw_pixels/top1", "best/eval/clusters/nmi/step"} <= set(held.summary)
    images = {name.split("/")[1] for row in held.rows for name in row if name.startswith("report/")}
    assert {"curves", "cluster-curves", "maps", "sizes-0", "clusters-over-time"} <= images
    assert len(images) <= 8  # none of a single cluster
    assert not [name for name in images if name.startswith("cluster-") and name != "cluster-curves"]
    clusters = table(folder, "clusters")
    assert clusters["columns"] == list(COLUMNS)
    assert sum(row[1] for row in clusters["data"]) == 1438
    probes = table(folder, "probes")
    assert probes["columns"][:4] == ["probe set", "metric", "untrained", "last"]
    checkpoints = {
        alias: json.loads(each.metadata)["step"] for each in held.artifact("checkpoint") for alias in each.aliases
    }
    assert checkpoints["last"] == 33
    assert checkpoints["best"] == held.summary["best/eval/linear/top1/step"]
    assert len(held.artifact("assignments")) == 1


UNREACHABLE = """
import os, sys, threading, time
from pathlib import Path
import ssl_lightning.runs.wandb
from ssl_lightning.runs.external_logger import RunIdentity
ssl_lightning.runs.wandb.FINISH_TIMEOUT = 1.0
logger = ssl_lightning.runs.WandbRun()
logger.settle(RunIdentity(Path(sys.argv[1]), "r", "ab12cd34", "g", "M"))
logger.log_metrics({"x": 1.0}, 1)
logger._background.submit(lambda: time.sleep(600))  # as a client without a network, which tries again and again
logger.close(succeeded=True)
"""


def test_the_program_ends_though_the_client_does_not(tmp_path):
    """The canary of the service process, which is private."""
    program = [sys.executable, "-c", UNREACHABLE, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "`wandb sync` sends the rest" in done.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_one_curve(runs):
    """Every step with one value, none missing though the client loses its last rows; the numbers of rows grow."""
    overlay = ("--config", "configs/shared/wandb.yaml")
    assert runs.fit("followed", "kill@step=29", extra=overlay).returncode == -9
    assert runs.fit("followed", extra=overlay).returncode == 0
    first, second = read_run(runs.folder / "followed")
    assert first.run.run_id == second.run.run_id
    numbers = [row["_step"] for row in (*first.rows, *second.rows)]
    assert numbers == sorted(set(numbers))
    curve = {}
    for row in (*first.rows, *second.rows):
        if "train/loss" in row:
            assert curve.setdefault(row["trainer/global_step"], row["train/loss"]) == row["train/loss"]
    losses = {int(row["step"]): float(row["train/loss"]) for row in runs.rows("followed") if row["train/loss"]}
    assert curve == losses
