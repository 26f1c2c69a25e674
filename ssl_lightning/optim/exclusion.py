"""Parameter groups without weight decay for biases and normalization layers, recognized by their one dimension."""

from collections.abc import Iterable
from typing import Any


def without_decay(groups: Iterable[Any]) -> list[dict[str, Any]]:
    """Split every group in two: matrices and kernels unchanged, the rest with weight decay 0.

    timm's `Lars` adapts the learning rate only of parameters with weight decay (unless `always_adapt`), so the rest is
    excluded from both, as in BYOL, MoCLR and Divide and Contrast.

    Args:
        groups: Parameters, or dicts with "params" and options. The weight decay of a group's excluded part is always 0.

    Returns:
        The non-empty groups, in order.
    """
    groups = list(groups)
    whole = groups if groups and isinstance(groups[0], dict) else [{"params": groups}]
    halves = []
    for group in whole:
        flat = [parameter for parameter in group["params"] if parameter.ndim <= 1]
        rest = [parameter for parameter in group["params"] if parameter.ndim > 1]
        halves += [{**group, "params": rest}, {**group, "params": flat, "weight_decay": 0.0}]
    return [half for half in halves if half["params"]]
