"""Checks of the trainer and the data that every method makes, each with an error of one line."""

import logging

from lightning.pytorch.strategies import ModelParallelStrategy

from ssl_lightning.errors import UsageError

log = logging.getLogger(__name__)


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Names that Lightning gives to what `trainer.precision` may be; 32, bf16 and 16 are others of theirs."""


def reject_precision(precision: str | None) -> None:
    """Reject weights in another format than float32.

    Args:
        precision: The trainer's.

    Raises:
        UsageError: For such weights.
    """
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(
            f"found trainer.precision={precision}; expected one of {', '.join(PRECISIONS)}: images are float32, and "
            "unit vectors and memory banks lose their length in half precision"
        )


def reject_strategy(strategy: object, method: str, keeps_average: bool, learns_from_clusters: bool) -> None:
    """Reject sharded parameters where a method needs them whole.

    Args:
        strategy: The trainer's.
        method: Its name, for the error.
        keeps_average: Whether it has a second network of averaged weights.
        learns_from_clusters: Whether its clusters become a head.

    Raises:
        UsageError: For sharded parameters with a method that has either.
    """
    if not isinstance(strategy, ModelParallelStrategy):
        return
    if keeps_average:
        raise UsageError(
            f"found ModelParallelStrategy with {method}, which keeps a second, whole network; expected "
            "a method without, such as SimCLR or SwAV, or whole parameters: give --trainer.strategy ddp"
        )
    if learns_from_clusters:
        raise UsageError(
            f"found ModelParallelStrategy with {method}, which makes a head of its clusters; expected "
            "a method without, such as SwAV (SEER), or whole parameters: give --trainer.strategy ddp"
        )


def reject_views(num_views: int, method: str, fewest: int) -> None:
    """Reject fewer views of an image than a training step needs.

    Args:
        num_views: V of the data.
        method: Its name, for the error.
        fewest: The number that it needs.

    Raises:
        UsageError: For fewer.
    """
    if num_views < fewest:
        raise UsageError(
            f"found {num_views} view(s) of an image; {method} needs at least {fewest}: give data.views, as configs/ do"
        )


def warn_of_micro_batches(accumulated: int, effect: str) -> None:
    """Log what gradient accumulation does to a loss over a whole batch; `effect` is empty for nothing."""
    if effect and accumulated > 1:
        log.warning("found accumulate_grad_batches=%d: %s", accumulated, effect)
