"""Checks of the trainer and the data that every method makes, each with an error of one line."""

import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from ssl_lightning.contracts import TrainingData
from ssl_lightning.errors import UsageError
from ssl_lightning.models.backbones import TimmBackbone
from ssl_lightning.models.image_sizes import size_taken, takes

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


def reject_sizes(network: nn.Module, arguments: Mapping[str, Any], data: TrainingData | None, stage: str) -> None:
    """Reject images of a size that the network does not take, before anything is computed.

    Args:
        network: The backbone.
        arguments: Of the method's constructor, for the name of the network.
        data: Of the run; None to check nothing.
        stage: fit, validate, test or predict.

    Raises:
        UsageError: With the network, the sizes, one that it takes and the options to set. An error that no usual size
            avoids is left to the first batch.
    """
    if data is None:
        return
    sizes = data.image_sizes(stage)
    wrong = [side for side in sizes if not takes(network, side)]
    taken = size_taken(network) if wrong else None
    if taken is None:
        return
    backbone, own = arguments.get("backbone"), data.preprocessing.image_size
    name = getattr(backbone, "name", arguments.get("name", type(backbone).__name__))
    fix = f"give --data.image_size {taken}" + (" and views of that size alone" if len(sizes) > 1 else "")
    if isinstance(backbone, TimmBackbone) and _interpolates(network):
        fix = f"give --model.backbone.img_size {own} --model.backbone.dynamic_img_size true, or {fix[5:]}"
    found = " and ".join(str(side) for side in wrong)
    raise UsageError(f"found images of {found} pixels for {name}; expected {taken}, which it takes: {fix}")


def _interpolates(network: nn.Module) -> bool:
    """Whether this is a ViT of timm, which can interpolate its position embeddings."""
    return any(hasattr(module, "dynamic_img_size") and hasattr(module, "pos_embed") for module in network.modules())


def warn_of_micro_batches(accumulated: int, effect: str) -> None:
    """Log what gradient accumulation does to a loss over a whole batch; `effect` is empty for nothing."""
    if effect and accumulated > 1:
        log.warning("found accumulate_grad_batches=%d: %s", accumulated, effect)
