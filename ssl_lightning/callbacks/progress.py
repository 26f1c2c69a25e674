"""Progress of training: a bar on a terminal, plain lines elsewhere, and the time left of the run."""

import logging
import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

log = logging.getLogger(__name__)
SHOWN = (("train/loss", "loss"), ("train/images_per_second", "img/s"), ("eval/knn/top1", "knn"))
"""Metrics on the bar, and their short names."""


class Clock:
    """Time left of a run, from the time of the steps so far, with evaluation and clustering."""

    def __init__(self) -> None:
        self._start, self._first, self._total = 0.0, 0, math.inf

    def start(self, trainer: pl.Trainer) -> None:
        """Start at the present step."""
        self._start, self._first = time.monotonic(), trainer.global_step
        self._total = float(trainer.estimated_stepping_batches)

    def steps(self, trainer: pl.Trainer) -> int:
        """Steps since the start."""
        return trainer.global_step - self._first

    def seconds_left(self, trainer: pl.Trainer) -> float | None:
        """None before the first step, and for a run whose number of steps is unknown."""
        done = self.steps(trainer)
        if done <= 0 or not math.isfinite(self._total):
            return None
        return (time.monotonic() - self._start) / done * max(self._total - trainer.global_step, 0)


def in_words(seconds: float) -> str:
    """A duration in its two largest units, such as `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (number, _) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number) or "0 s"


class ImagesProgressBar(TQDMProgressBar):
    """Lightning's bar with the epoch of all epochs, loss, images per second, k-NN accuracy, and the time left of the run.

    It is updated four times a second in training, not every step: an update takes as long as a step of a small network.
    """

    SECONDS = 0.25
    """Between two drawings."""

    def __init__(self) -> None:
        super().__init__()
        self._updated = 0.0
        self._clock = Clock()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._clock.start(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Name the epoch."""
        super().on_train_epoch_start(trainer, *_)
        self.train_progress_bar.set_description(f"epoch {_epoch(trainer)}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update it when it is due, and after the last batch."""
        now = time.monotonic()
        if now - self._updated >= self.SECONDS or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._updated = now

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, int | str | float | Any]:
        """See `lightning.pytorch.callbacks.ProgressBar.get_metrics`."""
        left = self._clock.seconds_left(trainer) if trainer.training else None
        return _metrics(trainer) | ({} if left is None else {"left": in_words(left)})


class ProgressLines(pl.Callback):
    """One plain line every so often, for a run without a terminal.

    Args:
        seconds: Between two lines; the first one comes after a tenth of it.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._due = 0.0
        self._clock = Clock()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._clock.start(trainer)
        self._due = time.monotonic() + self.seconds / 10

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a line when it is due."""
        if time.monotonic() < self._due or not trainer.is_global_zero:
            return
        self._due = time.monotonic() + self.seconds
        values = ", ".join(f"{name} {value}" for name, value in _metrics(trainer).items())
        left = self._clock.seconds_left(trainer)
        log.info(
            f"epoch {_epoch(trainer)}, step {trainer.global_step}{f', {values}' if values else ''}"
            f"{'' if left is None else f', {in_words(left)} left'}"
        )


class EstimateTime(pl.Callback):
    """Log once how long the run takes, after 50 steps."""

    AFTER = 50

    def __init__(self) -> None:
        self._clock, self._is_known = Clock(), False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._clock.start(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the estimate when it is due."""
        if self._is_known or self._clock.steps(trainer) < self.AFTER:
            return
        self._is_known, left = True, self._clock.seconds_left(trainer)
        if left is not None and left >= 60 and trainer.is_global_zero:
            log.info(f"about {in_words(left)} left, from the first {self.AFTER} steps")


def _epoch(trainer: pl.Trainer) -> str:
    last = trainer.max_epochs
    return f"{trainer.current_epoch + 1}{f'/{last}' if last is not None and last > 0 else ''}"


def _metrics(trainer: pl.Trainer) -> dict[str, str]:
    known = {name: trainer.callback_metrics.get(name, torch.tensor(torch.nan)) for name, _ in SHOWN}
    return {short: f"{float(known[name]):.4g}" for name, short in SHOWN if not known[name].isnan()}
