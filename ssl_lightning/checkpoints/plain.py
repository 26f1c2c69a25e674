"""Constructor arguments as plain values, for checkpoints without objects."""

import dataclasses
from pathlib import PurePath
from typing import Any

from ssl_lightning.errors import DataError

MAX_VALUES = 100_000
"""Largest number of values in a description, with repetitions; real runs have some hundred."""
MAX_DEPTH = 100


def class_path(cls: type) -> str:
    """The import path of a class in configurations."""
    return f"{cls.__module__}.{cls.__qualname__}"


def to_plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts; a frozen dataclass becomes its `class_path` and `init_args`.

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


def strings_in(value: Any) -> list[str]:
    """Every string in plain values except keys."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for item in items for text in strings_in(item)]


def reject_unbounded(value: Any) -> None:
    """Reject a description that has other values, contains itself, or expands to more values than it stores.

    A checkpoint can contain a list within itself, or one list many times within others.

    Raises:
        DataError: For such a description.
    """
    left = [(value, 1)]
    count = 0
    while left:
        inner, depth = left.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise DataError(f"found more than {MAX_VALUES:,} values or {MAX_DEPTH} levels; expected a description")
        if isinstance(inner, dict):
            left += [(each, depth + 1) for pair in inner.items() for each in pair]
        elif isinstance(inner, list | tuple):
            left += [(each, depth + 1) for each in inner]
        elif not (inner is None or isinstance(inner, bool | int | float | str)):
            raise DataError(f"found a {type(inner).__name__} in a description; expected plain values")
