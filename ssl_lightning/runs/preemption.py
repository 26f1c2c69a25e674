"""Preemption: a signal or a time limit sets a flag, and the run exits after the step or the evaluated batch."""

import _thread
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
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
"""Seconds for a process to release its lock and end its workers when it exits at once."""


class Preemption:
    """Handlers of SIGTERM, SIGUSR1, SIGUSR2 and SIGINT in the main process.

    The first signal determines the exit code, so that USR1 followed by TERM, as schedulers send them, ends with 85. A
    further signal soon after it is the same request, see `SAME_REQUEST`; a later one ends the process at once. The
    handler does nothing else: Lightning's own communicates with other processes and can hang.

    Args:
        command: The command line, to resume with.
        max_time: Time from the first evaluation on after which training stops as after SIGUSR1; null for no limit.

    Attributes:
        signal_code: The exit code that a signal requested; 0 for none.
    """

    def __init__(self, command: Sequence[str] = (), max_time: timedelta | None = None) -> None:
        self.max_time = max_time
        self.resuming = shlex.join(["ssl-lightning", *command])
        """The command that resumes this run: the same one."""
        self.signal_code = 0
        self._ends_at: float | None = None
        self._noted_at = 0.0
        self._pid = 0
        self._leaving = 0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def code(self) -> int:
        """The exit code that a signal or the end of the time requests of training; 0 for none."""
        late = self._ends_at is not None and time.monotonic() >= self._ends_at
        return self.signal_code or (RequeueError.exit_code if late else 0)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A context in which signals are handled; afterwards the previous handlers are restored.

        A SIGINT that was ignored at the start of the process, as in background jobs of a script, stays ignored.

        Raises:
            PreemptedError: Also if Lightning noticed the signal first, which would exit with code 0.
            SystemExit: For a process that exits at once.
        """
        before = {number: signal.getsignal(number) for number in REASONS}
        if before[signal.SIGINT] == signal.SIG_IGN:
            del before[signal.SIGINT]
        self._before, self._pid = before, os.getpid()
        self._ends_at = None if self.max_time is None else time.monotonic() + self.max_time.total_seconds()
        self.take()
        try:
            yield
        except SIGTERMException as error:
            reason = BY_CODE[self.signal_code or PreemptedError.exit_code]
            raise reason(f"stopped by a signal; the last checkpoint is kept, to resume: {self.resuming}") from error
        except BaseException:
            if self._leaving:  # libraries may wrap a SystemExit
                raise SystemExit(self._leaving) from None
            raise
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._before = {}

    def take(self) -> None:
        """Install the handlers again; every loop of Lightning installs its own."""
        for number in self._before:
            signal.signal(number, self._note)

    @staticmethod
    def agreed(trainer: pl.Trainer, code: int) -> int:
        """The exit code that was requested on any process, SIGTERM first; equal on all processes.

        Args:
            trainer: The running trainer.
            code: Of this process.
        """
        if trainer.world_size == 1:
            return code
        return int(highest(torch.tensor([code], device=trainer.strategy.root_device)))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker
            return
        now, kind = time.monotonic(), signal.Signals(number)
        if not self.signal_code:
            self.signal_code, self._noted_at = REASONS[kind].exit_code, now
        elif now - self._noted_at >= SAME_REQUEST[kind]:
            self._leave_at_once(128 + number)

    def _leave_at_once(self, code: int) -> None:
        """Exit with cleanup of the lock; a timer ends the process if the cleanup blocks."""
        if not self._leaving:
            self._leaving = code
            _thread.start_new_thread(_end, (code,))  # not `threading`, since the main thread may hold its locks
        sys.exit(self._leaving)


def _end(code: int) -> None:
    time.sleep(GRACE)
    os._exit(code)


class StopBetweenBatches(pl.Callback):
    """Exit `validate`, `test` and `predict` after a signal.

    A single process exits after the current batch. Several processes have different numbers of batches and can only
    agree after the last one. Validation within `fit` is completed first, since no checkpoint can be written before, see
    `Checkpointing`.

    Args:
        preemption: The handler of signals.
    """

    def __init__(self, preemption: Preemption) -> None:
        self.preemption = preemption

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers again, after Lightning's."""
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
        """Exit if there was a signal, for a single process."""
        if trainer.world_size == 1:
            self._leave_after_signal(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Exit if there was a signal on any process."""
        self._leave_after_signal(trainer)

    on_test_start = on_predict_start = on_validation_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

    def _leave_after_signal(self, trainer: pl.Trainer) -> None:
        if trainer.state.fn != "fit" and (code := self.preemption.agreed(trainer, self.preemption.signal_code)):
            raise BY_CODE[code](
                f"stopped by a signal while images were evaluated or embedded, after step {trainer.global_step} of "
                f"training; to resume: {self.preemption.resuming}"
            )
