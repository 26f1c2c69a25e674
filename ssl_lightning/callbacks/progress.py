"""Progress of a run: a bar on a terminal, plain lines elsewhere, and the time left."""

import logging
import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from ssl_lightning.progress import FIRST, SECONDS, in_words

log = logging.getLogger(__name__)
SHOWN = (("train/loss", "loss"), ("train/images_per_second", "images/s"), ("eval/knn/top1", "knn"))
"""Metrics on the bar, and their short names."""


class Clock:
    """Time left of training: of its steps, and of what precedes the first step of each epoch, such as clustering.

    An evaluation at the end of an epoch counts for the epoch after it. All times are those of one clock, in seconds.

    Args:
        now: The time.
        step: Optimizer steps so far.
        last_step: Optimizer steps at the end; infinite if unknown.
        steps_per_epoch: Optimizer steps of an epoch.
    """

    def __init__(self, now: float, step: int, last_step: float, steps_per_epoch: int) -> None:
        self._first_step = self._step = step
        self._last_step, self._steps_per_epoch = last_step, steps_per_epoch
        self._between, self._in_steps, self._epochs = 0.0, 0.0, 0
        self._noted_at = now

    def begin_epoch(self, now: float) -> None:
        """Note the start of the first step of an epoch."""
        self._between += now - self._noted_at
        self._epochs += 1
        self._noted_at = now

    def end_batch(self, now: float, step: int) -> None:
        """Note the end of a batch, and the optimizer steps so far."""
        self._in_steps += now - self._noted_at
        self._noted_at, self._step = now, step

    @property
    def steps(self) -> int:
        """Steps since the start."""
        return self._step - self._first_step

    def seconds_left(self) -> float | None:
        """None before the first step, and for a run without a bound on its steps."""
        if self.steps <= 0 or not math.isfinite(self._last_step):
            return None
        steps = max(self._last_step - self._step, 0)
        epochs = (self._last_step - 1) // self._steps_per_epoch - (self._step - 1) // self._steps_per_epoch
        return steps * self._in_steps / self.steps + max(epochs, 0) * self._between / max(self._epochs, 1)


class TimeLeft(pl.Callback):
    """The time left of training, logged once after `AFTER` steps."""

    AFTER = 50

    def __init__(self) -> None:
        self._clock = Clock(0.0, 0, math.inf, 1)
        self._is_logged = self._has_batch = False

    @property
    def seconds(self) -> float | None:
        """None while it is unknown."""
        return self._clock.seconds_left()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        per_epoch = max(1, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
        bounds = [(trainer.max_epochs or -1) * per_epoch, trainer.max_steps]
        last = float(min((bound for bound in bounds if bound > 0), default=math.inf))
        self._clock, self._has_batch = Clock(time.monotonic(), trainer.global_step, last, per_epoch), False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the start of an epoch; a resumed one may start within."""
        if batch_idx == 0 or not self._has_batch:
            self._clock.begin_epoch(time.monotonic())
        self._has_batch = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step, and log the time left when it is due."""
        self._clock.end_batch(time.monotonic(), trainer.global_step)
        if self._is_logged or self._clock.steps < self.AFTER:
            return
        self._is_logged, left = True, self.seconds
        if left is not None and left >= SECONDS and trainer.is_global_zero:
            log.info(f"about {in_words(left)} left after the first {self.AFTER} steps")


class ImagesProgressBar(TQDMProgressBar):
    """Lightning's bar with the epoch of all epochs, loss, images per second, k-NN accuracy, and the time left.

    It is updated four times a second in training, not every step: an update takes as long as a step of a small network.

    Args:
        time_left: A callback of the same trainer.
    """

    SECONDS = 0.25
    """Between two drawings."""

    def __init__(self, time_left: TimeLeft) -> None:
        super().__init__()
        self._time_left = time_left
        self._updated = 0.0

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
        left = self._time_left.seconds
        return _metrics(trainer) | ({} if left is None else {"left": in_words(left)})


class ProgressLines(ProgressBar):
    """One plain line every so often, for a run without a terminal.

    Args:
        time_left: A callback of the same trainer.
        seconds: Between two lines; the first one comes earlier, see `ssl_lightning.progress.FIRST`.
    """

    def __init__(self, time_left: TimeLeft, seconds: float = SECONDS) -> None:
        super().__init__()
        self.seconds = seconds
        self.is_disabled = False
        self._time_left = time_left
        self._due = 0.0

    def disable(self) -> None:
        """Log nothing more; Lightning calls it on all processes but the first."""
        self.is_disabled = True

    def enable(self) -> None:
        """Log lines again."""
        self.is_disabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first line is due soon."""
        self._due = time.monotonic() + min(FIRST, self.seconds)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first line of an evaluation or a prediction is due soon."""
        self._due = max(self._due, time.monotonic() + min(FIRST, self.seconds))

    on_test_start = on_predict_start = on_validation_start

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log epoch, step, metrics and the time left when a line is due."""
        if self._is_due():
            values = [f"{name} {value}" for name, value in _metrics(trainer).items()]
            left = self._time_left.seconds
            values += [] if left is None else [f"{in_words(left)} left"]
            log.info("%s", ", ".join([f"epoch {_epoch(trainer)}, step {trainer.global_step}", *values]))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the batch of an evaluation when a line is due."""
        if not trainer.sanity_checking:
            self._log_batch("evaluating", batch_idx, trainer.num_val_batches, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same in `test`."""
        self._log_batch("evaluating", batch_idx, trainer.num_test_batches, dataloader_idx)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same in `predict`."""
        self._log_batch("computing features", batch_idx, trainer.num_predict_batches, dataloader_idx)

    def _log_batch(self, what: str, batch_idx: int, batches: list[int | float], loader: int) -> None:
        if self._is_due():
            several = f" of split {loader + 1} of {len(batches)}" if len(batches) > 1 else ""
            log.info(f"{what}: batch {batch_idx + 1} of {batches[loader]}{several}")

    def _is_due(self) -> bool:
        now = time.monotonic()
        if self.is_disabled or now < self._due:
            return False
        self._due = now + self.seconds
        return True


def _epoch(trainer: pl.Trainer) -> str:
    last = trainer.max_epochs
    return f"{trainer.current_epoch + 1}{f'/{last}' if last is not None and last > 0 else ''}"


def _metrics(trainer: pl.Trainer) -> dict[str, str]:
    known = {name: trainer.callback_metrics.get(name, torch.tensor(torch.nan)) for name, _ in SHOWN}
    return {short: f"{float(known[name]):.4g}" for name, short in SHOWN if not known[name].isnan()}
