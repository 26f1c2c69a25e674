"""What no method runs with: precisions, strategies and data that do not suit it, each rejected in one line."""

import logging
from typing import Protocol, runtime_checkable

from lightning.pytorch.strategies import ModelParallelStrategy

from ssl_lightning.errors import UsageError

log = logging.getLogger(__name__)


@runtime_checkable
class MakesViews(Protocol):
    """What the check of the views needs of the data."""

    num_views: int


@runtime_checkable
class CountsImages(Protocol):
    """What the check of the images' number needs of the data."""

    num_samples: int


def reject_precision(precision: str | None) -> None:
    """Reject weights in half precision.

    Args:
        precision: The trainer's.

    Raises:
        ValueError: For weights that are not float32.
    """
    if precision in ("bf16-true", "16-true"):
        raise UsageError(
            f"found trainer.precision={precision}; expected weights in float32, since unit vectors "
            "and memories lose their length in half precision: give --trainer.precision bf16-mixed"
        )


def reject_strategy(strategy: object, method: str, keeps_average: bool, learns_from_clusters: bool) -> None:
    """Reject parameters that are spread over processes where a method needs them whole.

    Args:
        strategy: The trainer's.
        method: Its name, for people.
        keeps_average: Whether it has a second network of averaged weights.
        learns_from_clusters: Whether it makes a head of its clusters.

    Raises:
        ValueError: Where the method does and they are spread.
    """
    if not isinstance(strategy, ModelParallelStrategy):
        return
    if keeps_average:
        raise UsageError(
            f"found ModelParallelStrategy with {method}, which keeps a second network whole; expected "
            "a method without, such as SimCLR or SwAV, or whole parameters: give --trainer.strategy ddp"
        )
    if learns_from_clusters:
        raise UsageError(
            f"found ModelParallelStrategy with {method}, which makes a head of its clusters; expected "
            "a method without, such as SwAV (SEER), or whole parameters: give --trainer.strategy ddp"
        )


def reject_views(data: MakesViews, method: str, fewest: int) -> None:
    """Reject fewer views of an image than a training step needs.

    Args:
        data: Of the run.
        method: Its name, for people.
        fewest: How many it needs.

    Raises:
        ValueError: For fewer.
    """
    if data.num_views < fewest:
        raise UsageError(
            f"found {data.num_views} view(s) of an image; {method} needs at least {fewest}: give data.views, as "
            "configs/ do"
        )


def warn_of_micro_batches(accumulated: int, effect: str) -> None:
    """Say what gradient accumulation does to a loss that looks at a whole batch; `effect` is empty for nothing."""
    if effect and accumulated > 1:
        log.warning("found accumulate_grad_batches=%d: %s", accumulated, effect)
