"""Optimizer steps of an epoch and of a run, and an optimizer with its schedule."""

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssl_lightning.errors import UsageError
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import rank

log = logging.getLogger(__name__)
_SAMPLED = 1000
"""Number of steps at which a schedule is read to find its peak."""


def steps_per_epoch(batches: int, limit: int | float, accumulated: int) -> int:
    """Optimizer steps of one epoch, at least one.

    Args:
        batches: Batches of the data.
        limit: The trainer's `limit_train_batches`: a number, or a share.
        accumulated: Batches of one step.
    """
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return max(1, -(-batches // accumulated))


def steps_per_run(per_epoch: int, max_epochs: int | None, max_steps: int) -> int:
    """Optimizer steps of a run.

    Args:
        per_epoch: Those of one epoch.
        max_epochs: The trainer's; None or -1 for no bound.
        max_steps: The trainer's; -1 for no bound.

    Raises:
        UsageError: Without a bound.
    """
    bounds = [bound for bound in ((max_epochs or -1) * per_epoch, max_steps) if bound > 0]
    if not bounds:
        raise UsageError("found a schedule in a run without an end: give --trainer.max_epochs or max_steps")
    return min(bounds)


def check_groups(optimizer: Optimizer) -> None:
    """Reject rates with which no run learns, and which torch accepts.

    Raises:
        UsageError: For a learning rate that is not a finite number of 0 or more, or a momentum outside 0..1.
    """
    for group in optimizer.param_groups:
        rate, momentum = float(group["lr"]), float(group.get("momentum", 0))
        if not (math.isfinite(rate) and rate >= 0):
            raise UsageError(f"found model.optimizer.lr={rate}; expected a finite number, 0 or more")
        if not 0 <= momentum < 1:
            raise UsageError(f"found model.optimizer.momentum={momentum}; expected 0 or more, below 1")


def with_schedule(optimizer: Optimizer, schedule: Schedule, total_steps: int, per_epoch: int) -> dict[str, Any]:
    """An optimizer and its schedule in steps, as Lightning expects them of `configure_optimizers`.

    Args:
        optimizer: Of the run.
        schedule: Of the learning rate of every parameter group.
        total_steps: Optimizer steps of the run.
        per_epoch: Optimizer steps of one epoch.
    """
    factor = partial(schedule, total_steps=total_steps, steps_per_epoch=per_epoch)
    _warn_of_rising_rate(factor, total_steps, per_epoch)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


def _warn_of_rising_rate(factor: Callable[[int], float], total_steps: int, per_epoch: int) -> None:
    """Warn if the learning rate rises up to the end of a run, as in a run that is shorter than its warm-up."""
    first, last = factor(0), factor(total_steps - 1)
    peak = max(factor(step) for step in range(0, total_steps, -(-total_steps // _SAMPLED)))
    if last > first and last >= peak and rank() == 0:
        log.warning(
            "the learning rate rises up to the end of this run of %d steps (%.3g epochs), to %.2g of "
            "model.optimizer.lr: train for longer, or give a shorter --model.schedule.warmup_epochs",
            *(total_steps, total_steps / per_epoch, last),
        )


def highest_rate(optimizers: Iterable[Optimizer]) -> float:
    """The highest learning rate of any parameter group, before its schedule."""
    groups = (group for optimizer in optimizers for group in optimizer.param_groups)
    return max(float(group.get("initial_lr", group["lr"])) for group in groups)
