"""Constructor arguments as plain values, so that a checkpoint says what it is without holding objects."""

import dataclasses
from pathlib import PurePath
from typing import Any


def class_path(cls: type) -> str:
    """The import path of a class, as configurations write it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def to_plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts; a description (frozen dataclass) becomes its `class_path` and `init_args`.

    Raises:
        TypeError: For an object that a configuration could not have described.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return {"class_path": class_path(type(value)), "init_args": fields}
    raise TypeError(
        f"found a {type(value).__name__} among constructor arguments; expected plain values or frozen dataclasses, "
        "so that checkpoints can be read without running code"
    )
