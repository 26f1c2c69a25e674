"""The networks of a checkpoint, moved into a module without the state that belongs to training rows."""

from typing import Any

from torch import Tensor, nn

_BODY = "backbone.body."
"""Start of the names of the backbone's tensors in a method's state."""
_EXTRA_STATE = "_extra_state"
"""How torch ends the names of extra state, which holds memory banks, pseudo-labels and queues."""


def take_weights(module: nn.Module, state: dict[str, Any]) -> None:
    """Load the networks of a checkpoint.

    Memory banks, pseudo-labels and queues stay as they are, so the first clustering is made of the rows of this run.

    Args:
        module: A method; it names further state of rows in `per_sample_buffers`.
        state: The checkpoint's `state_dict`.

    Raises:
        RuntimeError: For networks of other names or shapes, with torch's message.
    """
    own = {name: value for name, value in module.state_dict().items() if _is_of_rows(module, name)}
    module.load_state_dict({name: value for name, value in state.items() if not _is_of_rows(module, name)} | own)


def find_misfit(module: nn.Module, state: dict[str, Any]) -> str:
    """The first tensor of a checkpoint's networks that the module does not have; empty if it has all.

    Args:
        module: See `take_weights`.
        state: The checkpoint's `state_dict`.
    """
    own, given = _shapes(module, module.state_dict()), _shapes(module, state)
    for name in sorted(own.keys() | given.keys()):
        if own.get(name) != given.get(name):
            return f"{name} {given.get(name, 'missing')} instead of {own.get(name, 'none')}"
    return ""


def backbone_of(checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The backbone of a checkpoint alone.

    Args:
        checkpoint: A checkpoint of a method.

    Returns:
        Its tensors under the names of its library (torchvision, timm or torch), and as plain values its description and
        the preprocessing of its images: `{"backbone": ..., "preprocessing": ...}`.
    """
    tensors = {
        name.removeprefix(_BODY): value.contiguous()
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(_BODY)
    }
    arguments = (checkpoint.get("hyper_parameters") or {}).get("init_args") or {}
    return tensors, {name: arguments[name] for name in ("backbone", "preprocessing") if name in arguments}


def _shapes(module: nn.Module, state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not _is_of_rows(module, name)}


def _is_of_rows(module: nn.Module, name: str) -> bool:
    return name in getattr(module, "per_sample_buffers", ()) or name.endswith(_EXTRA_STATE)
