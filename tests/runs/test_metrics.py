"""The metrics table on a full disk, and after damage: rows wait for room, and rows that are lost are counted."""

import csv
import errno
import os
import resource
from contextlib import suppress

import pytest
import torch

from ssl_lightning.checkpoints import DurableCheckpointIO, read_checkpoint
from ssl_lightning.commands.budget import read_cost
from ssl_lightning.entry import run
from ssl_lightning.errors import DataError
from ssl_lightning.report.metrics_file import read_table
from ssl_lightning.report.table import evaluations, results_table
from ssl_lightning.runs import MetricsTable
from ssl_lightning.runs.metrics import read_rows


@pytest.fixture
def no_room(monkeypatch):
    """A switch: with it on, the disk takes no byte more."""
    state = {"full": False}
    write_row, replace = MetricsTable._write_row, MetricsTable._replace

    def guarded(write):
        def attempt(self, what):
            if state["full"]:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(self, what)

        return attempt

    monkeypatch.setattr(MetricsTable, "_write_row", guarded(write_row))
    monkeypatch.setattr(MetricsTable, "_replace", guarded(replace))
    return state


@pytest.mark.parametrize("change", ["resume", "column"])
def test_no_moment_of_a_write_lacks_the_row_of_the_last_step(change, tmp_path, monkeypatch):
    """A checkpoint of that step takes its row for written: a kill between two writes would lose it."""
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path)
    table.log_metrics({"epoch": 0.0, "a": 1.0}, step=1)
    table.log_metrics({"epoch": 0.0, "a": 2.0}, step=2)
    seen, inner = [], os.replace

    def replace(source, target):
        inner(source, target)
        seen.append([row["step"] for row in read_rows(path)])

    monkeypatch.setattr(os, "replace", replace)
    if change == "resume":
        MetricsTable(path).cut_after(2)
    else:
        table.log_metrics({"b": 3.0}, step=2)
    assert seen == [["1", "2"]]
    resumed = MetricsTable(path)
    resumed.cut_after(2)
    resumed.log_metrics({"c": 4.0}, step=2)
    resumed.log_metrics({"epoch": 1.0, "a": 5.0}, step=3)
    rows = [{name: value for name, value in row.items() if value} for row in read_rows(path)]
    more = {"b": "3"} if change == "column" else {}
    assert rows[1:] == [{"step": "2", "epoch": "0", "a": "2", "c": "4"} | more, {"step": "3", "epoch": "1", "a": "5"}]


def test_rows_and_columns_of_a_full_disk_are_written_when_there_is_room(no_room, tmp_path, caplog):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.log_metrics({"epoch": 0.0, "a": 1.0}, step=1)
    no_room["full"] = True
    table.log_metrics({"b": 2.0}, step=1)  # a column that the file lacks, in a row that it has
    table.log_metrics({"epoch": 0.0, "a": 3.0}, step=2)
    table.log_metrics({"epoch": 1.0, "c": 4.0}, step=3)
    with pytest.raises(OSError, match="No space left"):
        table.flush()
    assert sum("rows wait in memory" in record.message for record in caplog.records) == 1
    no_room["full"] = False
    table.flush()
    table.log_metrics({"epoch": 1.0, "a": 5.0}, step=4)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert rows == [
        {"step": "1", "epoch": "0", "a": "1", "b": "2"},
        {"step": "2", "epoch": "0", "a": "3"},
        {"step": "3", "epoch": "1", "c": "4"},
        {"step": "4", "epoch": "1", "a": "5"},
    ]


def test_torch_does_not_hide_that_the_disk_is_full_and_the_old_file_stays(tmp_path):
    path = tmp_path / "step-1.ckpt"
    DurableCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            DurableCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(100_000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(read_checkpoint(path)["state_dict"]["w"]) == 3
    assert {file.name for file in tmp_path.iterdir()} == {"step-1.ckpt", "step-1.json"}


def test_a_full_disk_wherever_it_shows_is_one_line_and_code_74(monkeypatch, capsys):
    def full(arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x/run.json")

    monkeypatch.setattr("ssl_lightning.entry.dispatch", full)
    assert run(["fit"]) == 74
    (line,) = capsys.readouterr().err.splitlines()
    assert "runs/x/run.json" in line
    assert "free some space" in line


STEPS, AT = 12, 10


@pytest.fixture
def noted(tmp_path):
    """A table of twelve rows, and what the checkpoint of step 10 has noted of it."""
    table = MetricsTable(tmp_path / "metrics.csv")
    tally = {}
    for step in range(1, STEPS + 1):
        table.log_metrics({"epoch": float(step // 4), "train/loss": 1 / step, "train/seconds": 0.1 * step}, step)
        table.log_metrics({"train/flops": 5.0 * step}, step)
        if step == 3:
            table.log_metrics({"eval/knn/top1": 0.5}, step)  # a column that comes late
        if step == AT:
            tally = table.tally(AT)
    return table.path, tally


def resumed(path, tally):
    table = MetricsTable(path)
    table.cut_after(AT, tally)
    found = [int(row["step"]) for row in read_rows(path)] if path.exists() else []
    assert table.tally(AT)["rows"] == sum(step < AT for step in found)
    table.log_metrics({"epoch": 2.0, "train/loss": 0.5}, AT + 1)
    return found


def test_a_whole_table_is_taken_up_without_a_line(noted, caplog):
    path, tally = noted
    assert tally["rows"] == AT - 1
    assert resumed(path, tally) == list(range(1, AT + 1))
    assert resumed(path, tally) == list(range(1, AT + 1))
    assert not caplog.records


def lines(change):
    def damage(content):
        return b"".join(change(content.splitlines(keepends=True)))

    return damage


def changed(number, old, new):
    return lambda rows: [row.replace(old, new) if place == number else row for place, row in enumerate(rows)]


LOST = "rows before step 10 are missing or damaged"
CHANGED = "were changed or added"
DAMAGES = {
    "no file": (lambda content: None, f"9 of 9 {LOST}"),
    "empty": (lambda content: b"", f"9 of 9 {LOST}"),
    "header alone": (lines(lambda rows: rows[:1]), f"9 of 9 {LOST}"),
    "no header": (lines(lambda rows: rows[1:]), f"9 of 9 {LOST}"),
    "another header": (lines(lambda rows: [b"a,b,c\r\n", *rows[1:]]), f"9 of 9 {LOST}"),
    "a name twice": (lines(changed(0, b"epoch", b"step")), f"9 of 9 {LOST}"),
    "binary": (lambda content: os.urandom(2000), f"9 of 9 {LOST}"),
    "zeros": (lambda content: bytes(5000), f"9 of 9 {LOST}"),
    "compressed": (lambda content: b"\x1f\x8b" + content, f"9 of 9 {LOST}"),
    "utf-16": (lambda content: content.decode().encode("utf-16"), f"9 of 9 {LOST}"),
    "a row less": (lines(lambda rows: rows[:4] + rows[5:]), f"1 of 9 {LOST}"),
    "cut": (lambda content: content[: len(content) // 2], LOST),
    "cut in a row": (lines(lambda rows: [*rows[:5], rows[5][:-5]]), f"5 of 9 {LOST}"),
    "no number": (lines(changed(4, b"0.25", b"0.2x")), f"1 of 9 {LOST}"),
    "another number": (lines(changed(4, b"0.25", b"0.35")), CHANGED),
    "another step": (lines(lambda rows: [*rows[:4], b"9" + rows[4][1:], *rows[5:]]), CHANGED),
    "a step that is none": (lines(lambda rows: [*rows[:4], b"x" + rows[4][1:], *rows[5:]]), f"1 of 9 {LOST}"),
    "a step of another script": (
        lines(lambda rows: [*rows[:4], "\u00b2".encode() + rows[4][1:], *rows[5:]]),
        f"1 of 9 {LOST}",
    ),
    "a long step": (lines(lambda rows: [*rows[:4], b"9" * 6000 + rows[4], *rows[5:]]), f"1 of 9 {LOST}"),
    "an epoch that is none": (lines(changed(4, b"4,1,", b"4,inf,")), f"1 of 9 {LOST}"),
    "no utf-8": (lines(changed(4, b"0.25", b"0.\xff")), f"1 of 9 {LOST}"),
    "a nul": (lines(changed(4, b"0.25", b"0.\x00")), f"1 of 9 {LOST}"),
    "a huge field": (lines(changed(4, b"0.25", b"1" * 200_000)), f"1 of 9 {LOST}"),
    "an open quote": (lines(changed(4, b"0.25", b'"0.25')), LOST),
    "a cell more": (lines(changed(4, b"0.25", b"0.25,1")), f"1 of 9 {LOST}"),
    "a row more": (lines(lambda rows: [*rows[:4], rows[4], *rows[4:]]), CHANGED),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_that_are_lost_are_one_line_and_no_reader_of_the_table_fails(noted, damage, caplog):
    path, tally = noted
    change, told = DAMAGES[damage]
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        assert all(isinstance(step, int) for step, _ in evaluations(path))
        assert results_table(path)
        assert {name for row in read_table(path)[1] for name in row} <= set(read_table(path)[0])
        with suppress(DataError):
            assert read_cost(path.parent).steps > 0
    caplog.clear()
    resumed(path, tally)
    said = [record.getMessage() for record in caplog.records if "the run resumes with what is there" in record.message]
    assert len(said) == 1
    assert told in said[0]
    assert not any("\n" in record.getMessage() for record in caplog.records)


def test_a_table_that_is_no_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "metrics.csv")
    for path in (tmp_path / "metrics.csv", tmp_path, tmp_path / "none.csv"):
        with pytest.raises(DataError, match="expected the folder of a run"):
            read_rows(path)
    assert evaluations(tmp_path / "metrics.csv") == []
