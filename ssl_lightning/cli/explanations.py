"""The parser's messages in one sentence: what was found, what was expected."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.arguments import Option, configs_in, leading, options_in
from ssl_lightning.checkpoints.allowlist import explain_rejection
from ssl_lightning.checkpoints.renamed import renamed_class
from ssl_lightning.cli.expected import Mistake, expected_value
from ssl_lightning.cli.mistakes import Search
from ssl_lightning.cli.suggestions import no_method, unknown_option
from ssl_lightning.errors import DataError
from ssl_lightning.safe_yaml import load_yaml, read_yaml

_UNKNOWN = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)
_REQUIRED = re.compile(r"the following arguments are required: (.*)", re.DOTALL)
_WITHOUT_VALUE = re.compile(r"argument (--[\w.]+)\S*: expected one argument")
_NESTED = re.compile(r"Parser key \"([^\"]+)\":.*NestedArg\(key='([^']*)'", re.DOTALL)
_LOOP = re.compile(r"Config file loop detected: (\S+)")
_KEYS = re.compile(r"(?:Parser key \"|option '|Option '|key ')([^'\"]+)['\"]")
_OWN = re.compile(r"(?:argument \S+: )?(found .*; expected .*)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A call of the program.

    Attributes:
        arguments: Of the command line, with the subcommand, as the parser reads them.
        types: Declared types of the options by their names, without those of classes.
        folder: The current one: the parser moves to that of the file it reads.
    """

    arguments: tuple[str, ...] = ()
    types: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)


def explain(message: str, call: Call, options: list[str]) -> str:
    """A message of the parser in one sentence.

    Args:
        message: Of the parser.
        call: Which the parser reads.
        options: Names of the parser's options.
    """
    arguments, folder, declared = list(call.arguments), call.folder, call.types
    files = configs_in(arguments)
    if message.startswith("Problems parsing config") and (broken := _broken(files, folder)):
        return broken
    if own := _OWN.fullmatch(message):
        return own[1]
    if unknown := _UNKNOWN.match(message):
        return unknown_option(unknown[1].split()[0], options)
    if bare := _WITHOUT_VALUE.match(message):
        name = bare[1].removeprefix("--")
        if inner := next((one for one in options_in(arguments) if one.value is None and _is_within(one, name)), None):
            return f"found --{inner.name} without a value; expected one, as in --{inner.name} VALUE"
        return f"found {bare[1]} without a value; expected {expected_value(name, declared.get(name, str))}"
    if (nested := _NESTED.match(message)) and nested[1] in declared and nested[1] == "data" and "model" not in declared:
        return (
            f"found --data.{nested[2]}; expected --data alone, with a configuration: write a YAML file, or give a "
            "name such as data/folder"
        )
    if loop := _LOOP.match(message):
        return f"found {loop[1]}, which includes itself by its key config; expected files that end"
    search = Search(declared)
    mistakes = _mistakes(search, arguments, folder)
    rejected = explain_rejection(message)
    if rejected != message:
        return f"{_better(rejected, mistakes) or rejected}{renamed_class(message)}"
    if required := _REQUIRED.match(message):
        return _missing(required[1].split(", "), search, arguments)
    if mistake := _chosen(mistakes, message, search.passed):
        return f"{mistake.line}{renamed_class(message)}"
    key = next(iter(_KEYS.findall(message)), "a setting")
    return f"found {key} with a value that does not fit; expected one of the form that --print_config= shows"


def _is_within(option: Option, name: str) -> bool:
    """Whether an option sets an argument of a class or group, which the parser names alone."""
    return option.name.startswith(f"{name}.")


def _broken(files: Iterable[str], folder: Path) -> str | None:
    """The first file that is no YAML, and why."""
    for file in (file for file in files if os.path.isfile(folder / file)):
        try:
            read_yaml(folder / file)
        except DataError as error:
            return str(error)
    return None


def _mistakes(search: Search, arguments: list[str], folder: Path) -> list[Mistake]:
    """All mistakes, in the order in which the parser reads."""
    found: list[Mistake] = []
    for file in configs_in(arguments):
        is_file = os.path.isfile(folder / file)
        try:
            table = read_yaml(folder / file) if is_file else load_yaml(file)
        except (DataError, yaml.YAMLError, UnicodeError):
            continue
        found += search.in_file(file if is_file else "--config", table)
    for option in options_in(arguments):
        found += search.in_option(option)
    return found


def _chosen(mistakes: list[Mistake], message: str, passed: Mapping[str, Mistake]) -> Mistake | None:
    """The first mistake at the key that a message of the parser names; else the first of all, else a value there."""
    keys = [key.rpartition(".")[2] for key in _KEYS.findall(message)]
    named = [one for one in mistakes if one.name in keys] or mistakes
    return named[0] if named else next((passed[key] for key in keys if key in passed), None)


def _better(rejected: str, mistakes: list[Mistake]) -> str | None:
    """The mistake behind the rejection of a name, where it has more to say: close names, or that no file has the name.

    Args:
        rejected: The reason.
        mistakes: Of the command line and its files.
    """
    name = rejected.removeprefix("found ").split(";")[0].split(",")[0]
    written = next((one for one in mistakes if name in one.line), None)
    if written is None:
        return mistakes[0].line if mistakes and "base class" in rejected else None
    return written.line if "a public class that fits there" in rejected else None


def _missing(names: list[str], search: Search, arguments: list[str]) -> str:
    """The error for arguments that are required and not given."""
    if any(name.rpartition(".")[2] == "model" for name in names):
        return no_method(arguments)
    for line in search.missing(names):
        return line
    given = leading(options_in(arguments))
    form = " ".join(["ssl-lightning", *given, *(name.upper() for name in names)])
    return f"found no {' and no '.join(names)}; expected {form}"
