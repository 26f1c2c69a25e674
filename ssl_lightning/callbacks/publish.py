"""publish: metrics to every logger and to `trainer.callback_metrics` at once; when a training row is due."""

import lightning.pytorch as pl
import torch


def publish(trainer: pl.Trainer, metrics: dict[str, float]) -> None:
    """Log a row now.

    Lightning's own `log` delays values until after the hooks that write checkpoints, so a kill in between would lose a
    row that the resumed run does not write again; it also costs a quarter of a millisecond for each value and step.

    Args:
        trainer: The running trainer; the row belongs to its `global_step`.
        metrics: Values by name; shares are fractions 0..1.
    """
    trainer.callback_metrics.update({name: torch.tensor(float(value)) for name, value in metrics.items()})
    row = {"epoch": float(trainer.current_epoch), **metrics}
    for logger in trainer.loggers:
        logger.log_metrics(row, step=trainer.global_step)


def row_is_due(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a training row is due after this batch: one every `trainer.log_every_n_steps` steps; none if it is 0."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
    return every > 0 and (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step % every == 0
