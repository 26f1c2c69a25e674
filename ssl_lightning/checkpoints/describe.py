"""The description of a method in its checkpoint: its class and constructor arguments as plain values."""

import inspect
from typing import Any

from ssl_lightning.checkpoints.plain import class_path, to_plain

_OF_TRAINING = ("self", "optimizer", "schedule")
"""Arguments that a method restored from a checkpoint does without."""


def constructor_arguments(cls: type, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Arguments of a constructor by name, defaults included; those that it passes on to a base class too.

    Args:
        cls: The concrete class.
        *args: What it is called with, less the instance.
        **kwargs: The same.
    """
    signature = inspect.signature(cls.__init__)
    bound = signature.bind_partial(None, *args, **kwargs)
    bound.apply_defaults()
    passed_on = {name for name, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD}
    given = {name: value for name, value in bound.arguments.items() if name not in passed_on}
    for name in passed_on:
        given |= bound.arguments[name]
    return {name: value for name, value in given.items() if name not in _OF_TRAINING}


def describe(cls: type, arguments: dict[str, Any], configured: dict[str, Any]) -> dict[str, Any]:
    """The `class_path` and `init_args` of an instance.

    Args:
        cls: The concrete class.
        arguments: See `constructor_arguments`.
        configured: The same as a configuration describes them, for arguments that are no plain values.

    Raises:
        TypeError: For an object that no configuration describes: a method made in Python takes plain values or frozen
            dataclasses.
    """
    return {
        "class_path": class_path(cls),
        "init_args": {name: _described(name, value, configured) for name, value in arguments.items()},
    }


def _described(name: str, value: Any, configured: dict[str, Any]) -> Any:
    try:
        return to_plain(value)
    except TypeError:
        if name not in configured:
            raise
        return configured[name]
