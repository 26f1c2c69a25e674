"""Validation of checkpoints: names and types at the top level, and bounds on the sizes of tensors."""

from collections.abc import Iterator
from typing import Any

import torch

TYPES: dict[str, type | tuple[type, ...]] = {
    "state_dict": dict,
    "hyper_parameters": dict,
    "loops": dict,
    "callbacks": dict,
    "config": dict,
    "initial_weights": dict,
    "memories": dict,
    "metrics": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "random_state": list,
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
}
"""Types of the entries that Lightning and this package write; only the weights are required."""
NEEDED_TO_RESUME = ("global_step", "epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers")
NEEDED_TO_RESUME += ("pytorch-lightning_version",)
RATES = ("lr", "initial_lr", "weight_decay", "momentum", "dampening", "eps")
DEEPEST, MOST_NODES = 100, 100_000
_PLAIN = (type(None), bool, int, float, str)


def misfit(checkpoint: dict[Any, Any], size: int) -> str:
    """The first violation of the structure of a checkpoint; empty for a valid one.

    Args:
        checkpoint: The content, as read by torch.
        size: Size of its file in bytes, which no tensor may exceed.
    """
    for name, kind in TYPES.items():
        value = checkpoint.get(name)
        if name in checkpoint and not (isinstance(value, kind) and _is_count(value, kind)):
            return f"a {type(value).__name__} as its {name}"
    if not all(isinstance(name, str) for name in checkpoint["state_dict"]):
        return "names in its state_dict that are no text"
    if not all(isinstance(state, dict) for state in checkpoint.get("random_state", [])):
        return "a random_state that is none"
    for name in ("config", "metrics"):
        if not _is_flat(checkpoint.get(name, {})):
            return f"a {name} that is no table of plain values"
    if not _is_small(checkpoint.get("hyper_parameters", {})):
        return f"hyper_parameters of more than {MOST_NODES:,} values, or nested deeper than {DEEPEST}"
    if odd := _odd_rate(checkpoint.get("optimizer_states", [])):
        return f"an optimizer with {odd} that is not a number"
    for tensor in _tensors(checkpoint):
        if tensor.layout == torch.strided and tensor.numel() * tensor.element_size() > size:
            return f"a tensor of shape {tuple(tensor.shape)}, larger than the file"
    return ""


def _odd_rate(states: list[Any]) -> str:
    """The first option of an optimizer that should be a number and is not."""
    groups = [state.get("param_groups") for state in states if isinstance(state, dict)]
    for group in (group for listed in groups if isinstance(listed, list) for group in listed):
        for name in RATES if isinstance(group, dict) else ():
            value = group.get(name, 0.0)
            is_scalar = isinstance(value, torch.Tensor) and value.numel() == 1
            if not is_scalar and not isinstance(value, int | float):
                return name
    return ""


def _is_count(value: Any, kind: Any) -> bool:
    return kind is not int or (value >= 0 and not isinstance(value, bool))


def missing(checkpoint: dict[str, Any]) -> list[str]:
    """Entries that are missing for a resume."""
    return [name for name in NEEDED_TO_RESUME if name not in checkpoint]


def _is_flat(value: Any) -> bool:
    """Whether a value is a table of plain values, such as the inputs of a run."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and (isinstance(item, _PLAIN) or (isinstance(item, list | dict) and not item))
        for name, item in value.items()
    )


def _is_small(value: Any) -> bool:
    """Whether a description has no more nodes than a configuration may have, counting repetitions."""
    counts: dict[int, int] = {}

    def nodes(inner: Any, depth: int) -> int:
        if depth > DEEPEST:  # cycles end here too
            return MOST_NODES + 1
        if not isinstance(inner, dict | list | tuple):
            return 1
        if id(inner) not in counts:
            items = inner.values() if isinstance(inner, dict) else inner
            counts[id(inner)] = 1 + sum(nodes(item, depth + 1) for item in items)
        return counts[id(inner)]

    return nodes(value, 0) <= MOST_NODES


def _tensors(checkpoint: dict[str, Any]) -> Iterator[torch.Tensor]:
    """All tensors; a container that occurs several times is visited once."""
    left, met = [checkpoint], set()
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in met:
            met.add(id(value))
            left += [*value.keys(), *value.values()] if isinstance(value, dict) else value
