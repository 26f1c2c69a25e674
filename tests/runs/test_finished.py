"""A run has finished if done.json names its final checkpoint as it is; its settings are those in its checkpoints."""

import json
import logging
import shutil

import pytest
import torch

from ssl_lightning.checkpoints import DurableCheckpointIO
from ssl_lightning.checkpoints.durable import point_last
from ssl_lightning.errors import UsageError
from ssl_lightning.runs import RunDirectory
from ssl_lightning.runs.record import recorded
from ssl_lightning.runs.resume import decide

from .conftest import differences

INPUTS = {"model.init_args.optimizer.init_args.lr": 0.1, "data_fingerprint": "ab"}
INITIAL_WEIGHTS = {"path": "there/x.ckpt", "inputs": {"start_from_sha256": "cd"}}


def write_checkpoint(run, step, **more):
    path = run.checkpoints / f"step-{step}.ckpt"
    content = {"state_dict": {"w": torch.full((3,), float(step))}, "global_step": step}
    DurableCheckpointIO().save_checkpoint(content | more, path)
    point_last(path)


@pytest.fixture
def run(tmp_path):
    """A finished run with two checkpoints."""
    run = RunDirectory(tmp_path, "run")
    run.open()
    run.write("run.json", {"inputs": INPUTS, "initial_weights": INITIAL_WEIGHTS, "wandb_id": "x"})
    for step in (4, 8):
        write_checkpoint(run, step, config=INPUTS, initial_weights=INITIAL_WEIGHTS)
    run.finish(8)
    return run


def test_a_whole_run_has_finished_also_as_a_copy_without_links(run, tmp_path):
    assert run.finished() == {"checkpoint": "step-8.ckpt", "sha256": run.finished()["sha256"], "steps": 8}
    assert decide(run, "auto", False, INPUTS).action == "finished"
    shutil.copytree(run.path, tmp_path / "copy")
    assert RunDirectory(tmp_path, "copy").finished() is not None


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def relink(run, name):
    (run.checkpoints / "last.ckpt").unlink()
    if name is not None:
        (run.checkpoints / "last.ckpt").symlink_to(name)


def change_done(**changes):
    def change(run):
        done = json.loads((run.path / "done.json").read_text())
        (run.path / "done.json").write_text(json.dumps(done | changes))

    return change


DAMAGES = {
    "a bit": lambda run: flip(run.checkpoints / "step-8.ckpt"),
    "cut": lambda run: (run.checkpoints / "step-8.ckpt").write_bytes(b"PK"),
    "gone": lambda run: (run.checkpoints / "step-8.ckpt").unlink(),
    "sidecar gone": lambda run: (run.checkpoints / "step-8.json").unlink(),
    "sidecar nested": lambda run: (run.checkpoints / "step-8.json").write_text("[" * 100_000),
    "another checkpoint": lambda run: write_checkpoint(run, 8, config=INPUTS, more=1),
    "last of an older one": lambda run: relink(run, "step-4.ckpt"),
    "last gone": lambda run: relink(run, None),
    "last dangling": lambda run: relink(run, "step-9.ckpt"),
    "done empty": lambda run: (run.path / "done.json").write_bytes(b""),
    "done binary": lambda run: (run.path / "done.json").write_bytes(bytes(range(128, 200))),
    "done a list": lambda run: (run.path / "done.json").write_text("[]"),
    "done nested": lambda run: (run.path / "done.json").write_text("[" * 100_000),
    "done of nothing": lambda run: (run.path / "done.json").write_text("{}"),
    "other types": change_done(sha256=5),
    "other steps": change_done(steps="8"),
    "other digest": change_done(sha256="0" * 64),
    "older name": change_done(checkpoint="step-4.ckpt"),
    "outside": change_done(checkpoint="../../x/step-8.ckpt"),
    "newline": change_done(checkpoint="step-8.ckpt\n"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_has_not_and_is_resumed_with_a_line(run, damage, caplog):
    DAMAGES[damage](run)
    decision = decide(run, "auto", False, INPUTS)
    assert decision.action == "resume"
    left = "step-4.ckpt" if damage in ("a bit", "cut", "gone", "sidecar gone", "sidecar nested") else "step-8.ckpt"
    assert decision.checkpoint.name == left
    lines = [record.getMessage() for record in caplog.records if "the run has not finished" in record.getMessage()]
    assert len(lines) == 1
    assert "\n" not in lines[0]


RUN_JSON = {
    "gone": None,
    "empty": "",
    "a list": "[]",
    "nothing": "{}",
    "other types": '{"inputs": 3, "initial_weights": [1]}',
    "edited": json.dumps({"inputs": INPUTS | {"model.init_args.optimizer.init_args.lr": 0.2}, "initial_weights": {}}),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("content", RUN_JSON)
def test_the_settings_in_the_checkpoint_count_whatever_run_json_holds(run, content, finished, caplog):
    if not finished:
        (run.path / "done.json").unlink()
    (run.path / "run.json").unlink()
    if RUN_JSON[content] is not None:
        (run.path / "run.json").write_text(RUN_JSON[content])
    record = recorded(run)
    assert (record.inputs, record.initial_weights) == (INPUTS, INITIAL_WEIGHTS)
    changed = INPUTS | {"model.init_args.optimizer.init_args.lr": 0.2}
    with pytest.raises(UsageError, match=r"with other inputs: model.init_args.optimizer.init_args.lr 0.1 -> 0.2"):
        decide(run, "auto", False, changed)
    caplog.clear()
    assert decide(run, "auto", False, INPUTS).action == ("finished" if finished else "resume")
    lines = [record.getMessage() for record in caplog.records if "run.json" in record.getMessage()]
    assert len(lines) == 1
    reason = (
        "differs from step-8.ckpt: model.init_args.optimizer.init_args.lr 0.1 -> 0.2" if content == "edited" else ""
    )
    assert (reason or "no whole") in lines[0]


def test_a_checkpoint_of_the_first_versions_leaves_it_to_run_json(tmp_path):
    run = RunDirectory(tmp_path, "old")
    run.open()
    write_checkpoint(run, 4)
    run.write("run.json", {"inputs": INPUTS, "initial_weights": INITIAL_WEIGHTS})
    assert (recorded(run).inputs, recorded(run).initial_weights) == (INPUTS, INITIAL_WEIGHTS)
    (run.path / "run.json").unlink()
    assert recorded(run).inputs is None
    assert decide(run, "auto", False, INPUTS).action == "resume"


def test_a_finished_run_without_its_checkpoints_does_not_restart_with_other_settings(run, caplog):
    caplog.set_level(logging.ERROR)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(UsageError, match="other inputs"):
        decide(run, "auto", False, INPUTS | {"data_fingerprint": "other"})
    assert decide(run, "auto", False, INPUTS).action == "start"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a bit", "done empty", "last gone"])
def test_the_same_command_finishes_a_damaged_run_again_and_it_equals_one_that_was_never_damaged(runs, whole, damage):
    name = f"finished-{damage.replace(' ', '-')}"
    assert runs.fit(name).returncode == 0
    run = RunDirectory(runs.folder, name)
    last = (run.checkpoints / "last.ckpt").resolve()
    if damage == "a bit":
        flip(last)
    else:
        DAMAGES[damage](run)
    again = runs.fit(name)
    assert again.returncode == 0, again.stderr
    assert "the run has not finished" in again.stderr
    assert not differences(runs.checkpoint(name), runs.checkpoint(whole))
    assert runs.rows(name) == runs.rows(whole)
    assert run.finished() is not None


@pytest.mark.slow
def test_without_run_json_a_changed_learning_rate_is_rejected_all_the_same(runs):
    assert runs.fit("guarded", "kill@step=9").returncode == -9
    (runs.folder / "guarded" / "run.json").write_text("")
    changed = runs.fit("guarded", extra=("--model.optimizer.lr", "0.5"))
    assert changed.returncode == 64, changed.stderr
    assert "optimizer.init_args.lr" in changed.stderr
    assert "no whole" in changed.stderr
    assert runs.fit("guarded").returncode == 0
