"""Preemption: a signal sets a flag, and the next step boundary, or the next batch that is evaluated, acts on it."""

import _thread
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_lightning.errors import InterruptError, PreemptedError, RequeueError
from ssl_lightning.processes import highest

REASONS = {
    signal.SIGTERM: PreemptedError,
    signal.SIGUSR1: RequeueError,
    signal.SIGUSR2: RequeueError,
    signal.SIGINT: InterruptError,
}
BY_CODE = {reason.exit_code: reason for reason in REASONS.values()}
SAME_REQUEST = dict.fromkeys(REASONS, 5.0) | {signal.SIGINT: 0.5}
"""Seconds after the first signal in which a further one is the same request.

Schedulers send a signal to every process of a job and to its shell, which forwards it, or several in a row; a terminal
sends one SIGINT for each press of Ctrl-C.
"""
GRACE = 2.0
"""Seconds that a process has for unwinding (its lock, its workers) when it is to leave at once."""


class Preemption:
    """Notes SIGTERM, SIGUSR1, SIGUSR2 and SIGINT in the main process.

    The first one decides the exit code, so that USR1 and then TERM, as schedulers send them, end with 85. A further one
    soon after it is the same request, see `SAME_REQUEST`; later it ends the process at once. Nothing else happens
    inside a handler: Lightning's own talks to the other processes there and can hang for ever.

    Attributes:
        code: With which exit code a signal asked this process to end; 0 for none.
    """

    def __init__(self) -> None:
        self.code = 0
        self._noted_at = 0.0
        self._pid = 0
        self._leaving = 0
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note signals while loops run, and between them; afterwards they mean what they meant before.

        A SIGINT that the process was started to ignore, as jobs in the background of a script are, stays ignored.

        Raises:
            PreemptedError: Also where Lightning noticed the signal first, which it would leave with code 0.
            SystemExit: For a process that leaves at once, whatever became of it on the way.
        """
        before = {number: signal.getsignal(number) for number in REASONS}
        if before[signal.SIGINT] == signal.SIG_IGN:
            del before[signal.SIGINT]
        self._before, self._pid = before, os.getpid()
        self.take()
        try:
            yield
        except SIGTERMException as error:
            reason = BY_CODE[self.code or PreemptedError.exit_code]
            raise reason(f"stopped by a signal; the last checkpoint is kept, to resume: {resuming()}") from error
        except BaseException:
            if self._leaving:  # libraries wrap a SystemExit that ends one of their calls
                raise SystemExit(self._leaving) from None
            raise
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._before = {}

    def take(self) -> None:
        """Take the signals over again: every loop of Lightning sets its own handlers when it begins."""
        for number in self._before:
            signal.signal(number, self._note)

    def agreed(self, trainer: pl.Trainer) -> int:
        """With which exit code any process was asked to end, SIGTERM before the others; the same answer on all."""
        if trainer.world_size == 1:
            return self.code
        return int(highest(torch.tensor([self.code], device=trainer.strategy.root_device)))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a worker that inherited the handler
            return
        now, kind = time.monotonic(), signal.Signals(number)
        if not self.code:
            self.code, self._noted_at = REASONS[kind].exit_code, now
        elif now - self._noted_at >= SAME_REQUEST[kind]:
            self._leave_at_once(128 + number)

    def _leave_at_once(self, code: int) -> None:
        """Unwind, which gives the run's lock back; whatever waits on the way is cut short."""
        if not self._leaving:
            self._leaving = code
            _thread.start_new_thread(_end, (code,))  # not of `threading`, whose locks the main thread may hold
        sys.exit(self._leaving)


def resuming() -> str:
    """The command that resumes this run: the same one."""
    return shlex.join(["ssl-lightning", *sys.argv[1:]])


def _end(code: int) -> None:
    time.sleep(GRACE)
    os._exit(code)


class StopBetweenBatches(pl.Callback):
    """Leave `validate`, `test` and `predict` when a signal came.

    One process leaves after the batch at hand. Several have unequal numbers of batches, so they can only agree after
    the last one, before anything is made of them. The evaluating within `fit` goes on to its end: a checkpoint cannot
    be taken before, see `Checkpointing`.

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
                f"stopped by a signal while images were evaluated or embedded, after step {trainer.global_step} of "
                f"training; to resume: {resuming()}"
            )
