"""TensorBoardRun: the same names and steps as metrics.csv, one curve over sessions, and no harm to a run."""

import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from ssl_lightning.runs import MetricsTable, TensorBoardRun
from ssl_lightning.runs.external_logger import RunIdentity

ROWS = [(0, {"eval/knn/top1": 0.5}), (10, {"train/loss": 2.0, "epoch": 0.0}), (20, {"train/loss": 1.0})]


class Writer:
    """Records what `SummaryWriter` receives."""

    written: ClassVar[list["Writer"]] = []

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step = Path(folder), purge_step
        self.scalars, self.texts, self.images = [], {}, {}
        self.flushes, self.is_closed = 0, False
        Writer.written.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def add_text(self, name, text, step):
        self.texts[name] = text

    def add_image(self, name, image, step, dataformats):
        self.images[name] = (image.shape, step, dataformats)

    def flush(self):
        self.flushes += 1

    def close(self):
        self.is_closed = True


@pytest.fixture
def written(monkeypatch):
    """The writers; the package is not needed."""
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.written = []
    return Writer.written


def start(folder):
    logger = TensorBoardRun()
    logger.settle(RunIdentity(folder, "r", "id", "g", "SwAV"))
    logger.log_config({"model": {"width": 8}})
    return logger


def test_the_metrics_have_the_names_and_steps_of_the_table(written, tmp_path):
    logger = start(tmp_path)
    for step, metrics in ROWS:
        logger.log_metrics(metrics, step)
    logger.close(succeeded=True)
    (writer,) = written
    assert writer.folder == tmp_path / "tensorboard"
    assert writer.scalars == [(name, value, step) for step, row in ROWS for name, value in row.items()]
    assert "width: 8" in writer.texts["config"]
    assert writer.is_closed


def test_a_resumed_run_hides_what_it_logs_again(written, tmp_path):
    """The last rows before the checkpoint too: a writer that was killed may not have written them."""
    table = MetricsTable(tmp_path / "metrics.csv")
    for step, metrics in (*ROWS, (30, {"train/loss": 9.0})):
        table.log_metrics(metrics, step)
    logger = start(tmp_path)
    logger.resume_after(20)
    logger.log_metrics({"train/loss": 0.5}, 30)
    (writer,) = written
    assert writer.purge_step == 0
    losses = [(value, step) for name, value, step in writer.scalars if name == "train/loss"]
    assert losses == [(2.0, 10), (1.0, 20), (0.5, 30)]
    other = start(tmp_path / "without-table")
    other.resume_after(20)
    other.log_metrics({"x": 1.0}, 21)
    assert written[-1].purge_step == 21


def test_images_and_tables_of_the_report_are_there(written, tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
    logger = start(tmp_path)
    logger.log_metrics({"x": 1.0}, 7)
    logger.log_image("report/a", tmp_path / "a.png")
    logger.log_table("clusters", ("cluster", "purity", "images"), [[3, 0.51239, tmp_path / "a.png"], [4, None, None]])
    (writer,) = written
    assert writer.images == {"report/a": ((4, 6, 3), 7, "HWC")}
    assert writer.texts["clusters"].splitlines() == ["cluster | purity", "--- | ---", "3 | 0.5124", "4 | "]


def test_a_writer_that_raises_is_one_warning(written, tmp_path, monkeypatch, caplog):
    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(Writer, "add_scalar", full)
    logger = start(tmp_path)
    for step, metrics in ROWS:
        logger.log_metrics(metrics, step)
    logger.close(succeeded=False)
    assert [record.getMessage() for record in caplog.records] == [
        "TensorBoard stopped working (no space left on device); training continues"
    ]


def test_the_package_reads_one_curve(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    table = MetricsTable(tmp_path / "metrics.csv")
    first = start(tmp_path)
    for step, metrics in (*ROWS, (30, {"train/loss": 9.0})):
        table.log_metrics(metrics, step)
        first.log_metrics(metrics, step)
    first.close(succeeded=False)
    second = start(tmp_path)
    second.resume_after(20)
    second.log_metrics({"train/loss": 0.5}, 30)
    second.close(succeeded=True)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 2.0), (20, 1.0), (30, 0.5)]
