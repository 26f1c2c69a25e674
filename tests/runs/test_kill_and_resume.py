"""Resumed equals uninterrupted, to the bit, whatever moment the process dies at."""

import pytest

from .conftest import differences

pytestmark = pytest.mark.slow

KILLS = [
    "kill@step=1",  # before any checkpoint
    "kill@step=6",  # in the middle of an epoch, after a checkpoint within it
    "kill@step=11",  # at the last step of an epoch
    "kill@step=25",
    "kill@cluster=2",  # in the middle of a clustering
    "kill@cluster=3",
    "kill@write=1",  # in the middle of a checkpoint's bytes
    "kill@write=3",
    "kill@onto=.safetensors",  # between the two files of the first clusters
    *(f"kill@replace={n}" for n in (5, 7, 8, 9, 10)),  # between checkpoint, sidecar and link
]


@pytest.mark.parametrize("fault", KILLS)
def test_a_killed_run_that_the_same_command_finishes_equals_one_that_was_never_killed(runs, whole, fault):
    name = fault.replace("@", "-").replace("=", "-")
    assert runs.fit(name, fault).returncode == -9
    finished = runs.fit(name)
    assert finished.returncode == 0, finished.stderr
    assert "metrics.csv" not in finished.stderr
    assert runs.steps(name) == runs.steps(whole)
    assert not differences(runs.checkpoint(name), runs.checkpoint(whole))
    assert runs.rows(name) == runs.rows(whole)
    clusters = [
        {path.name: path.read_bytes() for path in (runs.folder / run / "clusters").iterdir()} for run in (name, whole)
    ]
    assert clusters[0] == clusters[1]
    assert len(clusters[0]) == 8  # two files in each of four epochs
    assert not list((runs.folder / name).rglob(".*tmp*"))


@pytest.mark.parametrize("step", [7, 11])  # within an epoch, and at its last step
def test_sigterm_leaves_one_checkpoint_at_the_step_boundary_and_exits_with_143(runs, whole, step):
    name = f"term-{step}"
    stopped = runs.fit(name, f"term@step={step}")
    assert stopped.returncode == 143
    assert "stopped at step" in stopped.stderr
    assert runs.checkpoint(name)["global_step"] == step
    assert runs.fit(name).returncode == 0
    assert runs.steps(name) == runs.steps(whole)
    assert not differences(runs.checkpoint(name), runs.checkpoint(whole))
    assert runs.rows(name) == runs.rows(whole)


EVALUATED = {"before-training": 2, "within-training": 6, "after-training": 14}
"""Batches: each evaluating takes four, before training, after two and four epochs, and after training."""


@pytest.mark.parametrize("when", EVALUATED)
def test_sigterm_while_the_network_is_evaluated_exits_with_143_and_the_same_command_finishes(runs, whole, when):
    name = f"term-{when}"
    stopped = runs.fit(name, f"term@evaluated={EVALUATED[when]}")
    assert stopped.returncode == 143, stopped.stderr
    assert not (runs.folder / name / "done.json").exists()
    assert not (runs.folder / name / "LOCK").exists()
    assert bool(list((runs.folder / name / "checkpoints").glob("step-*.ckpt"))) == (when != "before-training")
    for image in (runs.folder / name / "report").glob("*.png"):
        image.unlink()  # as if the machine had died before it saved them
    assert runs.fit(name).returncode == 0
    assert runs.steps(name) == runs.steps(whole)
    assert not differences(runs.checkpoint(name), runs.checkpoint(whole))
    assert runs.rows(name) == runs.rows(whole)
    images = [{path.name for path in (runs.folder / run / "report").iterdir()} for run in (name, whole)]
    assert images[0] == images[1]


def test_a_nan_loss_stops_at_its_step_with_code_70_and_leaves_the_last_finite_checkpoint(runs, whole):
    stopped = runs.fit("nan", "nan@step=9")
    assert stopped.returncode == 70
    assert "found loss nan at step 9" in stopped.stderr
    assert runs.checkpoint("nan")["global_step"] == 8
    assert all(
        value.isfinite().all() for value in runs.checkpoint("nan")["state_dict"].values() if hasattr(value, "isfinite")
    )
    assert runs.fit("nan").returncode == 0
    assert not differences(runs.checkpoint("nan"), runs.checkpoint(whole))


def test_a_full_disk_keeps_the_last_checkpoint_and_training_goes_on(runs, whole):
    finished = runs.fit("full", "full@write=2")
    assert finished.returncode == 0
    assert "training continues" in finished.stderr
    assert not differences(runs.checkpoint("full"), runs.checkpoint(whole))


def test_a_disk_that_takes_no_checkpoint_stops_the_run_with_74_and_one_line_and_room_fixes_it(runs, whole):
    stopped = runs.fit("narrow", "limit@bytes=20000")
    assert stopped.returncode == 74, stopped.stderr
    assert "unwritable 3 times in a row (File too large)" in stopped.stderr
    assert "free some space" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert runs.fit("narrow").returncode == 0
    assert runs.steps("narrow") == runs.steps(whole)
    assert runs.rows("narrow") == runs.rows(whole)


def test_a_finished_run_is_left_alone_and_a_changed_one_is_rejected_by_name_of_the_key(runs, whole):
    before = runs.checkpoint(whole)
    again = runs.fit(whole)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout + again.stderr
    changed = runs.fit(whole, extra=("--model.num_clusters", "13"))
    assert changed.returncode == 64
    assert "model.init_args.num_clusters 12 -> 13" in changed.stderr
    assert "--resume.policy restart" in changed.stderr
    never = runs.fit(whole, extra=("--resume.policy", "never"))
    assert never.returncode == 64
    assert "whole-2" in never.stderr
    assert not differences(runs.checkpoint(whole), before)


def test_a_damaged_newest_checkpoint_is_passed_over_for_the_one_before(runs, whole):
    assert runs.fit("damaged", "kill@step=30").returncode == -9
    newest = (runs.folder / "damaged" / "checkpoints" / "last.ckpt").resolve()
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    finished = runs.fit("damaged")
    assert finished.returncode == 0
    assert "falling back" in finished.stderr
    assert not differences(runs.checkpoint("damaged"), runs.checkpoint(whole))
    assert runs.rows("damaged") == runs.rows(whole)


def test_rows_that_are_gone_from_the_table_when_a_run_is_resumed_are_one_line(runs, whole):
    assert runs.fit("rows", "kill@step=30").returncode == -9
    table = runs.folder / "rows" / "metrics.csv"
    rows = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(rows[:2] + rows[4:]))
    finished = runs.fit("rows")
    assert finished.returncode == 0, finished.stderr
    (line,) = [line for line in finished.stderr.splitlines() if "metrics.csv" in line]
    assert "2 of " in line
    assert not differences(runs.checkpoint("rows")["state_dict"], runs.checkpoint(whole)["state_dict"])
