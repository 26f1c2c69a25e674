"""Preemption: a signal sets a flag, and the next step boundary, or the next batch that is judged, acts on it."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_lightning.processes import highest
from ssl_lightning.stops import PreemptedError, RequeueError

REASONS = {
    signal.SIGTERM: PreemptedError,
    signal.SIGUSR1: RequeueError,
    signal.SIGUSR2: RequeueError,
}
BY_CODE = {reason.exit_code: reason for reason in REASONS.values()}


class Preemption:
    """Notes SIGTERM, SIGUSR1 and SIGUSR2 in the main process; a second one ends it at once.

    Nothing else happens inside a handler: Lightning's own talks to the other processes there and can hang for ever.

    Attributes:
        code: With which exit code a signal asked this process to end; 0 for none.
    """

    def __init__(self) -> None:
        self.code = 0
        self._pid = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note signals while loops run, and between them; afterwards they mean what they meant before.

        Raises:
            PreemptedError: Also where Lightning noticed the signal first, which it would leave with code 0.
        """
        previous = {number: signal.getsignal(number) for number in REASONS}
        self._pid = os.getpid()
        self.take()
        try:
            yield
        except SIGTERMException as error:
            raise PreemptedError("stopped by a signal; the same command goes on from the last checkpoint") from error
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def take(self) -> None:
        """Take the signals over again: every loop of Lightning sets its own handlers when it begins."""
        for number in REASONS if self._pid else ():
            signal.signal(number, self._note)

    def agreed(self, trainer: pl.Trainer) -> int:
        """With which exit code any process was asked to end, SIGTERM before the others; the same answer on all."""
        if trainer.world_size == 1:
            return self.code
        return int(highest(torch.tensor([self.code], device=trainer.strategy.root_device)))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a worker that inherited the handler
            return
        if self.code:
            sys.exit(128 + number)
        self.code = REASONS[signal.Signals(number)].exit_code


class StopBetweenBatches(pl.Callback):
    """Leave `validate`, `test` and `predict` when a signal came.

    One process leaves after the batch at hand. Several have unequal numbers of batches, so they can only agree after
    the last one, before anything is made of them. The judging within `fit` goes on to its end: a checkpoint cannot be
    taken before, see `Checkpointing`.

    Args:
        preemption: Who watches the signals.
    """

    def __init__(self, preemption: Preemption) -> None:
        self.preemption = preemption

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has just set its handlers."""
        self.preemption.take()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """A good moment for one process."""
        if trainer.world_size == 1:
            self._leave_if_asked(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A good moment for all processes."""
        self._leave_if_asked(trainer)

    on_test_start = on_predict_start = on_validation_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

    def _leave_if_asked(self, trainer: pl.Trainer) -> None:
        if trainer.state.fn != "fit" and (code := self.preemption.agreed(trainer)):
            raise BY_CODE[code](
                f"stopped by a signal while pictures were judged or embedded, after step {trainer.global_step} of "
                "training; the same command goes on with that"
            )
