"""The metrics table on a full disk: rows wait for room, in order, and a checkpoint waits for them."""

import csv
import errno
import resource

import pytest
import torch

from ssl_lightning.checkpoints import DurableCheckpointIO, read_checkpoint
from ssl_lightning.entry import run
from ssl_lightning.runs import MetricsTable


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


def test_rows_and_columns_of_a_full_disk_are_written_when_there_is_room(no_room, tmp_path, caplog):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.log_metrics({"epoch": 0.0, "a": 1.0}, step=1)
    no_room["full"] = True
    table.log_metrics({"b": 2.0}, step=1)  # a column that the file lacks, in a row that it has
    table.log_metrics({"epoch": 0.0, "a": 3.0}, step=2)
    table.log_metrics({"epoch": 1.0, "c": 4.0}, step=3)
    with pytest.raises(OSError, match="No space left"):
        table.flush()
    assert sum("rows wait for room" in record.message for record in caplog.records) == 1
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

    monkeypatch.setattr("ssl_lightning.entry._carry_out", full)
    assert run(["fit"]) == 74
    (line,) = capsys.readouterr().err.splitlines()
    assert "runs/x/run.json" in line
    assert "free some space" in line
