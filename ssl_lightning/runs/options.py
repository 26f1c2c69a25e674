"""NewOptions: the optimizer of a run that goes on with other settings is the one that the settings describe."""

import logging
from typing import Any

import lightning.pytorch as pl
from torch.optim.lr_scheduler import LambdaLR

from ssl_lightning.runs.initial_weights import without_initial_weights
from ssl_lightning.runs.resume import differences

log = logging.getLogger(__name__)
Options = list[list[dict[str, Any]]]
"""Of each optimizer, of each group of its parameters: everything but the parameters."""


class NewOptions(pl.Callback):
    """Give optimizers and schedules the options of the present configuration where a run goes on with another.

    An optimizer's state holds its options, a schedule's the rates that it multiplies, so that a resume brings back
    those of the checkpoint. Momenta and the position in the schedule are the checkpoint's all the same.

    Attributes:
        config: What the run computes now, as plain values; the command line sets it.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self._changed: list[str] = []
        self._given: Options = []

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Compare what the checkpoint was made with."""
        self._changed = differences(without_initial_weights(checkpoint.get("config", {})), self.config)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the options that the configuration gives, before the state of the checkpoint replaces them."""
        self._given = _options(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put them back, and say what that changes."""
        if not self._changed:
            return
        before = _options(trainer)
        _renew(trainer, self._given)
        after = _options(trainer)
        told = sorted(set(_told(before, after)))
        if told:
            log.info(f"the optimizer goes on with other options: {'; '.join(told)}")
        self._changed = []


def _options(trainer: pl.Trainer) -> Options:
    return [
        [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]


def _renew(trainer: pl.Trainer, given: Options) -> None:
    schedules = {id(config.scheduler.optimizer): config.scheduler for config in trainer.lr_scheduler_configs}
    for optimizer, groups in zip(trainer.optimizers, given, strict=True):
        schedule: Any = schedules.get(id(optimizer))
        for place, (group, options) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
            rate = group["lr"]
            base = group.get("initial_lr", rate)
            group.update(options)
            if schedule is None:
                continue
            schedule.base_lrs[place] = options["initial_lr"]
            if isinstance(schedule, LambdaLR):
                group["lr"] = options["initial_lr"] * schedule.lr_lambdas[place](schedule.last_epoch)
            else:  # every schedule that multiplies its rate
                group["lr"] = rate * options["initial_lr"] / base if base else options["initial_lr"]


def _told(before: Options, after: Options) -> list[str]:
    return [
        f"{'lr' if name == 'initial_lr' else name} {old.get(name)} -> {value}"
        for olds, news in zip(before, after, strict=True)
        for old, new in zip(olds, news, strict=True)
        for name, value in new.items()
        if old.get(name) != value and not (name == "lr" and "initial_lr" in new)
    ]
