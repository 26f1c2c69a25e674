"""Parameter groups without weight decay: biases and normalization layers, which have one dimension."""

from collections.abc import Iterable
from typing import Any


def without_decay(groups: Iterable[Any]) -> list[dict[str, Any]]:
    """Split every group in two: matrices and kernels as they are, the rest with weight decay 0.

    timm's `Lars` adapts the rate only where there is decay (unless `always_adapt`), so the rest is left out of both,
    as BYOL, MoCLR and Divide and Contrast do it.

    Args:
        groups: Parameters, or dicts with "params" and their own options, except the weight decay of the second half.

    Returns:
        Groups that are not empty, in order.
    """
    groups = list(groups)
    whole = groups if groups and isinstance(groups[0], dict) else [{"params": groups}]
    halves = []
    for group in whole:
        flat = [parameter for parameter in group["params"] if parameter.ndim <= 1]
        rest = [parameter for parameter in group["params"] if parameter.ndim > 1]
        halves += [{**group, "params": rest}, {**group, "params": flat, "weight_decay": 0.0}]
    return [half for half in halves if half["params"]]
