"""BestCheckpoint: keeps the checkpoint with the best evaluation, which a run would delete."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ssl_lightning.checkpoints.read import checkpoints_by_step, sidecar_path
from ssl_lightning.report.best import primary_metric
from ssl_lightning.report.table import evaluations


class BestCheckpoint:
    """A hard link to the best of the checkpoints that were evaluated, which takes no space while the run keeps it too.

    The best is the one with the largest primary metric: the first of the metrics of the table of results that was
    evaluated on the primary probe set.

    Args:
        run: Folder of the run.
        folder: Folder of the link.
    """

    def __init__(self, run: Path, folder: Path) -> None:
        self.run, self.folder = run, folder
        values = {step: numbers[name] for step, numbers in evaluations(run / "metrics.csv") if (name := _name(numbers))}
        held = checkpoints_by_step(folder)
        self._value = values.get(_step(held[0])) if held else None
        self._waiting = {step: value for step, value in values.items() if self._checkpoint(step).is_file()}
        """Evaluated steps and their values, until the checkpoint of the step is written."""

    @property
    def files(self) -> list[Path]:
        """The checkpoint and its sidecar; empty if there is none."""
        self._link()
        found = checkpoints_by_step(self.folder) if self._value is not None else []
        return [found[0], sidecar_path(found[0])] if found else []

    @property
    def step(self) -> int | None:
        """Its step."""
        files = self.files
        return _step(files[0]) if files else None

    def update(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Take note of a row, and link the checkpoints of the evaluations before it that are the best so far."""
        self._link()
        name = _name(metrics)
        if name is not None and step:
            self._waiting[step] = metrics[name]

    def _checkpoint(self, step: int) -> Path:
        return self.run / "checkpoints" / f"step-{step}.ckpt"

    def _link(self) -> None:
        for step, value in list(self._waiting.items()):
            checkpoint = self._checkpoint(step)
            if not checkpoint.is_file() or not sidecar_path(checkpoint).is_file():
                continue
            del self._waiting[step]
            if self._value is None or value > self._value:
                with suppress(OSError):  # a file system without hard links
                    self._replace(checkpoint)
                    self._value = value

    def _replace(self, checkpoint: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("step-*"):
            path.unlink(missing_ok=True)
        for path in (sidecar_path(checkpoint), checkpoint):
            os.link(path, self.folder / path.name)


def _name(numbers: Mapping[str, float]) -> str | None:
    return primary_metric(name for name, value in numbers.items() if value == value)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.stem.rpartition("-")[2])
