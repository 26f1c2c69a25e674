"""NewOptions: optimizer settings of a resumed run with a changed configuration."""

import logging
from typing import Any

import lightning.pytorch as pl
from torch.optim.lr_scheduler import LambdaLR

from ssl_lightning.runs.initial_weights import without_initial_weights
from ssl_lightning.runs.resume import differences

log = logging.getLogger(__name__)
Options = list[list[dict[str, Any]]]
"""All options of each parameter group of each optimizer."""


class NewOptions(pl.Callback):
    """Apply the optimizer and schedule options of the current configuration to a resumed run.

    The state of an optimizer contains its options, and that of a schedule its base rates, so that a resume would
    restore those of the checkpoint. Momentum buffers and the position in the schedule are restored.

    Attributes:
        config: The inputs of the current command, as plain values.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self._changed: list[str] = []
        self._given: Options = []

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Compare the configuration with that of the checkpoint."""
        self._changed = differences(without_initial_weights(checkpoint.get("config", {})), self.config)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the options of the configuration before the state of the checkpoint replaces them."""
        self._given = _options(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore them, and log what changes."""
        if not self._changed:
            return
        before = _options(trainer)
        _renew(trainer, self._given)
        after = _options(trainer)
        changes = sorted(set(_changes(before, after)))
        if changes:
            log.info(f"the optimizer continues with other options: {'; '.join(changes)}")
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
            else:  # schedules that multiply a base rate
                group["lr"] = rate * options["initial_lr"] / base if base else options["initial_lr"]


def _changes(before: Options, after: Options) -> list[str]:
    return [
        f"{'lr' if name == 'initial_lr' else name} {old.get(name)} -> {value}"
        for olds, news in zip(before, after, strict=True)
        for old, new in zip(olds, news, strict=True)
        for name, value in new.items()
        if old.get(name) != value and not (name == "lr" and "initial_lr" in new)
    ]
