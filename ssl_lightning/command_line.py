"""What stands on a command line: its files, and where a key stands that the parser does not know."""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any


def configs_in(arguments: list[str]) -> list[str]:
    """What is given by `--config FILE` or `--config=FILE`, in its order; it may be YAML in place of a file."""
    parts = [part for text in arguments for part in (text.split("=", 1) if text.startswith("--config=") else [text])]
    return [file for option, file in pairwise(parts) if option == "--config"]


def values_in(arguments: list[str]) -> list[str]:
    """Values of the options other than `--config`, as they were typed, and arguments that stand alone."""
    return [value for _, value in options_in(arguments)]


def options_in(arguments: list[str]) -> list[tuple[str, str]]:
    """Options other than `--config`, without their dashes, with each value as it was typed.

    An argument that stands alone has the option before it, or an empty name.
    """
    parts = [part for text in arguments for part in (text.split("=", 1) if text.startswith("--") else [text])]
    found, option = [], ""
    for before, part in pairwise(["", *parts]):
        if part.startswith("--"):
            option = part[2:]
        elif before != "--config":
            found.append((option, part))
    return found


def reject_addresses_in(arguments: list[str]) -> None:
    """Configurations are read from local paths.

    Raises:
        UsageError: For a `--config` that is an address, or another value that is one of a local file.
    """
    from ssl_lightning.errors import UsageError

    configs = [config for config in configs_in(arguments) if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", config)]
    files = [value for value in values_in(arguments) if value.startswith("file:")]
    for address in (*configs, *files):
        raise UsageError(f"found the address {address}; expected the path of a local file")


def binary_config(arguments: list[str]) -> str | None:
    """The first of the files that is no text: the parser, which reads it as YAML, does not say which one."""
    return next((path for path in configs_in(arguments) if os.path.isfile(path) and not _is_text(path)), None)


def short_print_config(arguments: list[str]) -> list[str]:
    """`--print_config` shows what differs from the defaults; `--print_config=` shows everything."""
    return ["--print_config=skip_default" if argument == "--print_config" else argument for argument in arguments]


def with_its_place(message: str, arguments: list[str], folder: Path) -> str:
    """The parser's message, or which file is no YAML, or where a key stands that it rejects by its last name alone.

    Args:
        message: Of the parser.
        arguments: Of the command line.
        folder: In which the command was given.
    """
    from ssl_lightning.errors import DataError
    from ssl_lightning.safe_yaml import read_yaml  # a bare --help does without yaml

    files = [file for file in configs_in(arguments) if os.path.isfile(folder / file)]
    if message.startswith("Problems parsing config"):
        for file in files:
            try:
                read_yaml(folder / file)
            except DataError as error:
                return str(error)
    rejected = re.fullmatch(r"Option '([^']+)' is not accepted", message)
    if rejected is None:
        return message
    key = rejected[1]
    places = [f"{path} in {file}" for file in files for path in _paths(read_yaml(folder / file), key)]
    places += [option for option, _, _ in (text.partition("=") for text in arguments) if option.endswith(f".{key}")]
    where = places[-1] if places else f"the key {key}"
    return f"found {where}, which is not known there; expected one of the names that --print_config= shows"


def missing_package(error: BaseException | None) -> str | None:
    """What the first import that failed on the way to an error says; None if none did."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return " ".join(str(error).split())
        error = error.__cause__ or error.__context__
    return None


def _is_text(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            for _ in file:  # a checkpoint is large, and not text from its first lines on
                pass
    except UnicodeDecodeError:
        return False
    return True


def _paths(value: Any, key: str, path: str = "") -> Iterator[str]:
    """Of every mapping in a file that has this key, from the top of the file."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for name, inner in items:
        here = f"{path}.{name}" if path else str(name)
        if name == key:
            yield here
        yield from _paths(inner, key, here)
