"""Preemption: a signal sets a flag, and the next step boundary acts on it."""

import os
import signal
import sys
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from torch import distributed as dist


class Preemption:
    """Notes SIGTERM, SIGUSR1 and SIGUSR2 in the main process; a second one ends it at once.

    Nothing else happens inside a handler: Lightning's own talks to the other processes there and can hang for ever.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self.requested = False
        self._pid = 0
        self._previous: dict[signal.Signals, Any] = {}

    def watch(self) -> None:
        """Take the signals over; to be called after Lightning has set its own handlers."""
        self._pid = os.getpid()
        self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}

    def leave(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}

    def agreed(self, trainer: pl.Trainer) -> bool:
        """Whether any process was asked to stop; the same answer on all of them."""
        if trainer.world_size == 1:
            return self.requested
        flag = torch.tensor([int(self.requested)], device=trainer.strategy.root_device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a worker that inherited the handler
            return
        if self.requested:
            sys.exit(128 + number)
        self.requested = True
