"""Weights & Biases with the real client and a server of the tests: runs online, and `wandb sync` of offline runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .wandb_server import WandbServer

SESSIONS = """
import sys
from pathlib import Path
from ssl_lightning.runs import WandbRun
from ssl_lightning.runs.external_logger import RunIdentity
folder, mode, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
logger = WandbRun(mode=mode, tags=["a"])
logger.settle(RunIdentity(folder / "swav-digits-s0", "swav-digits-s0", "ab12cd34", "swav-digits", "SwAV"))
logger.log_config({"model": {"init_args": {"width": 8}}})
logger.use_artifacts(["me/ssl/base:v3"])
logger.alert("one_cluster", "all images are in one cluster")
for step in range(first, last):
    logger.log_metrics({"eval/knn/top1": step / 100}, step)
file = folder / f"step-{last}.ckpt"
file.write_text("weights")
logger.log_files("checkpoint", [file], {"step": last})
logger.log_summary({"best/eval/knn/top1": last / 100})
logger.close(succeeded=True)
"""


@pytest.fixture
def served():
    with WandbServer() as server:
        yield server


def call(server, *command, cwd=None):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = kept | {"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": server.address}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def check(run, steps):
    """One curve, one row a step, and the rest of the run."""
    assert [row["trainer/global_step"] for row in run.rows] == list(steps)
    numbers = [row["_step"] for row in run.rows]
    assert numbers == sorted(set(numbers))
    assert run.summary["best/eval/knn/top1"] == 0.06
    assert run.config["model"] == {"init_args": {"width": 8}}
    assert (run.settings["groupName"], run.settings["jobType"], run.settings["tags"]) == ("swav-digits", "SwAV", ["a"])
    assert run.alerts == [("one_cluster in swav-digits-s0", "all images are in one cluster")]
    aliases = [[alias["alias"] for alias in artifact["aliases"]] for artifact in run.artifacts]
    assert [artifact["artifactCollectionName"] for artifact in run.artifacts] == ["checkpoint-swav-digits-s0"] * 2
    assert all({"last", "latest"} == set(names) for names in aliases)


def test_a_run_online_is_one_curve_over_its_sessions_with_its_artifacts_and_their_lineage(served, tmp_path):
    for first, last in ((0, 3), (3, 6)):
        warnings = call(served, sys.executable, "-c", SESSIONS, str(tmp_path), "online", str(first), str(last))
        assert "Weights & Biases" not in warnings
    run = served.runs["ab12cd34"]
    check(run, range(6))
    assert set(run.used) == {"me/ssl/base:v3"}
    assert {"step-3.ckpt", "step-6.ckpt"} <= set(served.uploads)


def test_one_command_uploads_all_offline_sessions_of_a_run_as_one_curve(served, tmp_path):
    for first, last in ((0, 3), (3, 6)):
        call(served, sys.executable, "-c", SESSIONS, str(tmp_path), "offline", str(first), str(last))
    assert served.runs == {}
    sync = [str(Path(sys.executable).with_name("wandb")), "sync", "--yes"]
    folders = [str(path) for path in sorted(tmp_path.glob("*/wandb/offline-run-*"))]
    assert len(folders) == 2
    for _ in range(2):  # what is there is skipped
        call(served, *sync, *folders)
    check(served.runs["ab12cd34"], range(6))
    assert {"step-3.ckpt", "step-6.ckpt"} <= set(served.uploads)


SWEEP = """
program: ssl-lightning
command: [ssl-lightning, fit, --config, demo, --model.backbone.width, "4", --trainer.max_steps, "2",
  --trainer.limit_val_batches, "0", --config, shared/wandb, --trainer.logger.mode, auto, "${args}"]
method: grid
metric: {name: eval/knn/top1, goal: maximize}
parameters:
  model.num_clusters: {values: [10, 20]}
"""


@pytest.mark.slow
def test_an_agent_trains_the_trials_of_a_sweep_file_online(served, tmp_path):
    """`wandb sweep` and `wandb agent` of the real client, as in docs/sweeps.md."""
    (tmp_path / "k.yaml").write_text(SWEEP)
    wandb = str(Path(sys.executable).with_name("wandb"))
    printed = call(served, wandb, "sweep", "--project", "p", "k.yaml", cwd=tmp_path)
    assert "wandb agent me/p/sweep1" in printed
    call(served, wandb, "agent", "me/p/sweep1", cwd=tmp_path)
    assert list(served.trials.values()) == [{"model.num_clusters": 10}, {"model.num_clusters": 20}]
    for name, point in served.trials.items():
        folder = tmp_path / "runs" / f"demo-digits-s0-{name}"
        assert (folder / "done.json").is_file()
        run = served.runs[name]
        assert run.config["model"]["init_args"]["num_clusters"] == point["model.num_clusters"]
        assert run.rows
