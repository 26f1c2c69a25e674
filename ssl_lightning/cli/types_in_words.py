"""Declared types of options: whether a value is of one, and the type and the value in plain words."""

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, Union, get_args, get_origin

import torch
import yaml
from jsonargparse import Namespace

LONGEST = 70
"""Most characters of a value in a message."""
SCALARS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
"""Types of single values in words."""
PLURALS = {"a whole number": "whole numbers", "a number": "numbers", "true or false": "true or false", "text": "texts"}
EXAMPLES = {int: ("1", "2", "3"), float: ("0.1", "0.2", "0.3"), bool: ("true", "false", "true"), str: ("a", "b", "c")}
LISTS: tuple[Any, ...] = (list, tuple, set, frozenset, Iterable, Sequence)


def branches(hint: Any) -> list[Any]:
    """The types of a union, or the type alone, without annotations."""
    origin = get_origin(hint)
    if origin is typing.Annotated:
        return branches(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return [one for each in get_args(hint) for one in branches(each)]
    return [hint]


def is_list(branch: Any) -> bool:
    """Whether a type is one of lists, such as a tuple or an iterable."""
    origin = get_origin(branch) or branch
    return origin in LISTS


def is_table(branch: Any) -> bool:
    """Whether a type is a table with names of the user."""
    origin = get_origin(branch) or branch
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def length(branch: Any) -> int | None:
    """The number of values of a tuple; None for a list of any length."""
    items = get_args(branch)
    return len(items) if get_origin(branch) is tuple and items and items[-1] is not Ellipsis else None


def admits(branch: Any, value: Any) -> bool:
    """Whether a single value is of a type that is no class, list or table.

    Args:
        branch: Of a union.
        value: As YAML has it.
    """
    if branch in (Any, object, inspect.Parameter.empty) or isinstance(branch, typing.TypeVar):
        return True
    if get_origin(branch) is typing.Literal:
        return any(value == one and type(value) is type(one) for one in get_args(branch))
    if branch in (None, type(None)):
        return value is None
    if branch is bool:
        return isinstance(value, bool)
    if branch is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if branch is float:
        return _is_number(value)
    if branch is str or (inspect.isclass(branch) and issubclass(branch, PurePath | timedelta | torch.device)):
        return isinstance(value, str)
    return False


def in_words(*hints: Any, value: Any = None) -> str:
    """The values of types, without null and without classes: `a whole number or auto`; empty for classes alone.

    Args:
        hints: Each may be a union.
        value: As given: the name like it is added where there are several.
    """
    parts = [part for hint in hints for part in branches(hint)]
    if float in parts:
        parts = [part for part in parts if part is not int]
    names = list(
        dict.fromkeys(str(one) for part in parts if get_origin(part) is typing.Literal for one in get_args(part))
    )
    close = get_close_matches(str(value).lower(), names, n=1) if names and value is not None else []
    meant = f" (did you mean {close[0]}?)" if close else ""
    found = dict.fromkeys(words for part in parts for words in _words(part))
    return _joined([*found, *names]) + meant


def as_yaml(value: Any) -> str:
    """A value as it stands in a configuration, in one line; a class with arguments by its name alone.

    Args:
        value: Plain, or the parser's.
    """
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def shortened(text: str) -> str:
    """A value for a message, with its middle left out where it is long."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def _joined(words: list[str]) -> str:
    """All of some words, the last after `or`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _words(branch: Any) -> list[str]:
    if is_table(branch):
        return ["a table such as {name: value}"]
    if is_list(branch):
        return [_list_in_words(branch)]
    if inspect.isclass(branch) and issubclass(branch, PurePath):
        return ["a path"]
    if branch is timedelta:
        return ["a time such as 00:12:00:00"]
    if branch is bool:
        return ["true", "false"]
    return [SCALARS[branch]] if branch in SCALARS else []


def _list_in_words(branch: Any) -> str:
    items = [item for item in get_args(branch) if item is not Ellipsis]
    item = next((part for part in branches(items[0]) if part in SCALARS), None) if items else int
    number = length(branch)
    if item is None:
        return "a list"
    example = ", ".join(EXAMPLES[item][: number or 2])
    return (
        f"a list such as [{example}]"
        if number is None
        else (f"a list of {number} {PLURALS[SCALARS[item]]} such as [{example}]")
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, str):  # the parser reads 1e-3 and inf as numbers, YAML does not
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """Values that YAML has; a class by its name, with its arguments where there are any."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        if "__subclasses_disabled__" in value:  # the fields of a dataclass, as the parser holds them
            fields = vars(value["init_args"])
            return {name: _plain(inner) for name, inner in fields.items() if inner not in (None, (), [], {})}
        if "class_path" in value:
            return str(value["class_path"]).rpartition(".")[2]
        return {str(name): _plain(inner) for name, inner in value.items() if not str(name).startswith("__")}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
