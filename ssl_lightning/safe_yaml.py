"""A YAML loader with bounds, for untrusted files.

PyYAML's safe loader accepts aliases that expand to an unlimited number of nodes, anchors that contain themselves, and
repeated keys, of which the last wins. This loader rejects them.
"""

import os
import re
import stat
import sys
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.arguments import values_in
from ssl_lightning.errors import DataError, called_by_parser

MAX_BYTES = 10_000_000
MAX_NODES = 100_000
"""Largest number of scalars, lists and tables, including repetitions by aliases."""
MAX_DEPTH = 100
MAX_DIGITS = 100
"""Largest number of characters of a number; parsing time grows with their square, and Python rejects 4,300."""


_NUMBER = re.compile(r"[-+.]?[0-9][0-9a-fA-FxXoO_:.+-]*")
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_FAILURES = (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError)
"""Exceptions of PyYAML's constructors, for example for invalid dates, keys that are lists, numbers out of range."""


class UnsafeYAMLError(yaml.YAMLError):
    """YAML beyond the bounds."""


class UnreadableFileError(UnsafeYAMLError, DataError):
    """A file that is not a configuration, given by `--config` or by a value."""


@dataclass
class _Open:
    """A list or table that is being read, or a completed node, with the number of nodes that it expands to."""

    anchor: str | None = None
    is_table: bool = False
    nodes: int = 1
    depth: int = 1
    at_key: bool = True
    keys: dict[Hashable, int] = field(default_factory=dict)


def load_yaml(text: str) -> Any:
    """Plain values from YAML, by the safe loader.

    Raises:
        yaml.YAMLError: If the text is not YAML, or beyond the bounds.
    """
    check_yaml(text)
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except _FAILURES as error:
        raise UnsafeYAMLError(f"found a value that cannot be read ({error})") from error


def read_yaml(path: str | Path) -> Any:
    """`load_yaml` for a file.

    Raises:
        DataError: If the file cannot be read or is not such YAML.
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise DataError(f"found {path}, larger than {MAX_BYTES:,} bytes; expected a configuration")
        return load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"found {path}, which cannot be read as YAML ({reason}); expected a configuration") from error


def check_yaml(text: str) -> None:
    """Check the bounds of YAML text in one pass, without creating values.

    Raises:
        yaml.YAMLError: See `load_yaml`.
    """
    if len(text) > MAX_BYTES:
        raise UnsafeYAMLError(f"found more than {MAX_BYTES:,} characters; expected a configuration")
    whole = _Open()
    stack, ended = [whole], {}
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            is_table = isinstance(event, yaml.MappingStartEvent)
            _key(stack[-1], None, event)
            stack.append(_Open(event.anchor, is_table))
            _check_depth(len(stack) - 1, event)
        elif isinstance(event, yaml.CollectionEndEvent):
            _add(stack, stack.pop(), ended, event)
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event)
            _key(stack[-1], event.value, event)
            _add(stack, _Open(event.anchor), ended, event)
        elif isinstance(event, yaml.AliasEvent):
            if any(node.anchor == event.anchor for node in stack):
                raise UnsafeYAMLError(f"found the anchor {event.anchor} within itself, line {_line(event)}")
            _key(stack[-1], None, event)
            known = ended.get(event.anchor, _Open())
            _add(stack, _Open(None, nodes=known.nodes, depth=known.depth), ended, event)


def bound_parser() -> None:
    """Apply these bounds to all parsers of this process."""
    from jsonargparse import Path as ParsersPath
    from jsonargparse import get_loader, set_loader

    global _parsers_own, _parsers_reader  # kept once: a second call would keep our own
    if _parsers_own is None:
        _parsers_own, _parsers_reader = get_loader("yaml"), ParsersPath.read_text
    set_loader("yaml", _bounded, exceptions=(yaml.YAMLError,))
    ParsersPath.read_text = _read_bounded  # type: ignore[method-assign]  # reads a value that names a file


_parsers_own: Any = None
_parsers_reader: Any = None


def _read_bounded(path: os.PathLike[str]) -> str:
    """Read the text of a local file that a value names; replaces the parser's method.

    Files of the kernel, which can block or never end, report a size of zero. A named pipe, such as the path of standard
    input, is read if an argument of the command line names it, as `--config <(...)` does. A dash is accepted only
    there, since `check_yaml` rejects it.

    Raises:
        UnreadableFileError: If the file is a pipe that the user has not named, cannot be read, or is too large.
    """
    name = os.fspath(path)
    if str(path) == "-" and _parsers_reader is not None:
        return _parsers_reader(path)
    try:
        facts = os.stat(name)
        is_file = stat.S_ISREG(facts.st_mode)
        if not is_file and name not in values_in(sys.argv[1:]):
            raise UnreadableFileError(f"found {name}, which is no file; expected a configuration")
        if is_file and facts.st_size > MAX_BYTES:
            raise UnreadableFileError(f"found {name}, larger than {MAX_BYTES:,} bytes; expected a configuration")
        if is_file and facts.st_size == 0:
            return ""
        with open(name, encoding="utf-8") as file:
            return file.read(MAX_BYTES + 1)  # which `check_yaml` then rejects
    except OSError as error:
        raise UnreadableFileError(f"found {name}, which cannot be read ({error.strerror})") from error


def _bounded(text: str) -> Any:
    with called_by_parser(yaml.YAMLError, RecursionError, UnicodeError):  # of files without an end, of surrogates
        check_yaml(text)
    try:
        return _parsers_own(text)
    except _FAILURES as error:
        raise UnsafeYAMLError(f"found a value that cannot be read ({error})") from error


def _add(stack: list[_Open], node: _Open, ended: dict[str, _Open], event: yaml.Event) -> None:
    """A node is complete: count it where it stands."""
    if node.anchor is not None:
        ended[node.anchor] = node
    parent = stack[-1]
    parent.nodes += node.nodes
    parent.depth = max(parent.depth, node.depth + 1)
    if sum(one.nodes for one in stack) > MAX_NODES:
        raise UnsafeYAMLError(f"found more than {MAX_NODES:,} values, aliases written out, at line {_line(event)}")
    _check_depth(len(stack) + node.depth - 1, event)


def _check_depth(depth: int, event: yaml.Event) -> None:
    if depth > MAX_DEPTH:
        raise UnsafeYAMLError(
            f"found lists and tables {depth} deep at line {_line(event)}; expected {MAX_DEPTH} at most"
        )


def _key(table: _Open, value: str | None, event: yaml.Event) -> None:
    """A key or a value of a table begins; keys and values alternate."""
    if not table.is_table:
        return
    if table.at_key and value is not None:
        if value in table.keys:
            lines = f"in lines {table.keys[value]} and {_line(event)}"
            raise UnsafeYAMLError(f"found the key {value!r} twice, {lines}; expected it once")
        table.keys[value] = _line(event)
    table.at_key = not table.at_key


def _check_scalar(event: yaml.ScalarEvent) -> None:
    """Reject numbers that take long, and what the parser would take for standard input or an address of a file."""
    if event.value == "-" or event.value.startswith("file:"):
        raise UnsafeYAMLError(f"found {event.value!r} in line {_line(event)}; expected values and local paths")
    is_number = event.tag in _NUMBER_TAGS or (event.implicit[0] and _NUMBER.fullmatch(event.value))
    if len(event.value) > MAX_DIGITS and is_number:
        raise UnsafeYAMLError(f"found a number of {len(event.value)} characters in line {_line(event)}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1
