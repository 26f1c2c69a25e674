"""Precedence on a command line: packaged files by their folder, other files as given, then all options.

The parser applies what it reads one after the other. This module puts the command line into the order in which that
gives the documented result, whatever the order in which it was typed.
"""

import os
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from ssl_lightning.arguments import CONFIG, Option, configs_in, options_in
from ssl_lightning.cli.config_names import configs_folder
from ssl_lightning.cli.data_of_run import config_of_run, text_of
from ssl_lightning.cli.types_in_words import as_yaml, shortened
from ssl_lightning.errors import DataError, ParsingError, UsageError
from ssl_lightning.runs.artifacts import PREFIX
from ssl_lightning.safe_yaml import load_yaml, read_yaml

FOLDERS = ("data", "scale", "shared")
"""Folders of packaged configurations after the methods, in their order; files of the user come last."""
EVALUATING = ("validate", "test", "predict")
"""Subcommands that use the images of the run that their checkpoint belongs to."""
SECTIONS = ("trainer", "run", "resume", "doctor")
"""Sections of a configuration that are tables of options."""
SPECIFICATION = {"class_path", "init_args", "dict_kwargs"}
"""Keys of a table that describes a class and its arguments."""


def in_order(arguments: list[str]) -> list[str]:
    """The command line with its configuration files first, and classes before their arguments.

    Args:
        arguments: Subcommand, files with resolved names, and options.

    Raises:
        UsageError: Two files name different methods, or two are packaged data sources.
    """
    subcommand, *rest = arguments
    options = options_in(rest)
    files = sorted(configs_in(arguments), key=_rank)
    tables = [_table(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        _check_sections(file, table)
    _reject_two_sources(files)
    _reject_two_methods(files, tables)
    _reject_preprocessing(options, files, tables)
    others = _classes_first([option for option in options if option.name != CONFIG])
    if (
        (checkpoint := _checkpoint(others, tables))
        and subcommand in EVALUATING
        and not _names_source(files, tables, others)
    ):
        place = sum(_rank(file) == 0 for file in files)
        files.insert(place, config_of_run(checkpoint, _last(others, "run.dir") or "runs"))
        tables.insert(place, _table(files[place]))
    given = [f"--{CONFIG}={text}" for text in _with_emptied_lists(files, tables)]
    return [subcommand, *given, *(word for option in others for word in _emptied(option))]


def written_by_user(arguments: list[str]) -> set[tuple[str, str]]:
    """Names in files of the user, each with its value as YAML.

    Args:
        arguments: Of the command line, `in_order`.
    """
    files = [file for file in configs_in(arguments) if os.path.isfile(file) and _rank(file) > len(FOLDERS)]
    return {one for file in files for one in _names(_table(file))}


def is_packaged(file: str) -> bool:
    """Whether a configuration is a file of the package."""
    return _rank(file) <= len(FOLDERS)


def _names(value: Any) -> Iterator[tuple[str, str]]:
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield str(name), as_yaml(inner)
        yield from _names(inner)
    for inner in value if isinstance(value, list) else ():
        yield from _names(inner)


def _place(option: Option) -> tuple[str, ...]:
    """Names of the place that an option sets, without `init_args`."""
    return tuple(name for name in option.name.split(".") if name != "init_args")


def _reject_preprocessing(options: list[Option], files: list[str], tables: list[dict[str, Any]]) -> None:
    """Reject a preprocessing of the model, which the data decide and the parser would drop without a word.

    The complete configuration of a run holds it too.
    """
    advice = "which is that of the data: give --data.image_size, --data.mean or --data.std"
    for option in options:
        if _place(option)[:2] == ("model", "preprocessing"):
            raise UsageError(f"found --{option.name}, {advice}")
    for file, table in zip(files, tables, strict=True):
        model = table.get("model")
        arguments = model.get("init_args", model) if isinstance(model, dict) else None
        if isinstance(arguments, dict) and "preprocessing" in arguments and "seed_everything" not in table:
            raise UsageError(f"found model.preprocessing in {file}, {advice}")


def _rank(file: str) -> int:
    """Position of a file by its folder: methods, data, scale, shared, files of the user."""
    path, folder = Path(file).resolve(), configs_folder().resolve()
    if not os.path.isfile(file) or not path.is_relative_to(folder):
        return len(FOLDERS) + 1
    name = path.relative_to(folder).parts[0]
    return FOLDERS.index(name) + 1 if name in FOLDERS else 0


def _table(file: str) -> dict[str, Any]:
    """What a file sets; empty for standard input, and for what the parser is about to reject with its own message.

    Raises:
        ParsingError: A file sets nothing, or is no table.
    """
    is_file = os.path.isfile(file)
    try:
        table = read_yaml(file) if is_file else load_yaml(file) if file != "-" else {}
    except (DataError, yaml.YAMLError, UnicodeError):
        return {}
    if is_file and (not table or not isinstance(table, dict)):
        found = "which is empty" if not table else f"which is a {type(table).__name__}"
        raise ParsingError(f"found {file}, {found}; expected sections such as model, data and trainer")
    return table if isinstance(table, dict) else {}


def _check_sections(file: str, table: dict[str, Any]) -> None:
    """Reject sections that are no tables, which the parser leaves out without a word, and a file without any value.

    Raises:
        ParsingError: If so.
    """
    where = f" in {file}" if os.path.isfile(file) else ""
    sections = SECTIONS if any(value is not None for value in table.values()) else tuple(table)
    for name in sections:
        value = table.get(name, {})
        if value is None:
            raise ParsingError(f"found {name}{where} without options; expected a table of options, or no {name}")
        if not isinstance(value, dict):
            raise ParsingError(f"found {name}={shortened(as_yaml(value))}{where}; expected a table of options")


def _checkpoint(options: list[Option], tables: list[dict[str, Any]]) -> str | None:
    """The checkpoint to evaluate, if there is one to read; what reads it later has the error for a missing one."""
    named = [table["ckpt_path"] for table in tables if isinstance(table.get("ckpt_path"), str)]
    path = _last(options, "ckpt_path") or (named[-1] if named else "")
    return path if path.startswith(PREFIX) or os.path.isfile(path) else None


def _last(options: list[Option], name: str) -> str | None:
    values = [option.value for option in options if option.name == name and option.value not in (None, "", "null")]
    return values[-1] if values else None


def _names_source(files: list[str], tables: list[dict[str, Any]], options: list[Option]) -> bool:
    """Whether images are named by a packaged data source, a file of the user, or an option.

    The source in a packaged method is a default, which the images of a run replace.
    """
    by_file = any(_rank(file) and _class_of(table.get("data")) for file, table in zip(files, tables, strict=True))
    return by_file or any(_place(option) in (("data",), ("data", "class_path")) for option in options)


def _reject_two_sources(files: list[str]) -> None:
    sources = list(dict.fromkeys(file for file in files if _rank(file) == 1))
    if len(sources) > 1:
        names = " and ".join(Path(file).stem for file in sources)
        raise UsageError(
            f"found the data sources {names} in the configurations; expected one: leave the others out, or train on "
            "several with data/union"
        )


def _reject_two_methods(files: list[str], tables: list[dict[str, Any]]) -> None:
    named = [(file, _class_of(table.get("model"))) for file, table in zip(files, tables, strict=True)]
    for (one, first), (other, second) in combinations([(file, name) for file, name in named if name], 2):
        if first != second:
            raise UsageError(
                f"found two methods in the configurations, {first} in {one} and {second} in {other}; expected one: "
                "leave one of the files out"
            )


def _class_of(section: Any) -> str:
    """The last name of the class of a section; empty where it names none."""
    path = section.get("class_path") if isinstance(section, dict) else section
    is_name = isinstance(path, str) and re.fullmatch(r"[\w.]+", path) and not os.path.exists(path)
    return str(path).rpartition(".")[2] if is_name else ""


def _classes_first(options: list[Option]) -> list[Option]:
    """Options in the given order, but each one that names a class or a whole table before those of its arguments."""
    found: list[Option] = []
    for option in options:
        inner = (
            place
            for place, other in enumerate(found)
            if len(_place(other)) > len(_place(option)) and _place(other)[: len(_place(option))] == _place(option)
        )
        found.insert(next(inner, len(found)), option)
    return found


# The parser merges the entries of a new list with those of the one before where both have as many. An empty list
# between them makes the new list replace the one before, whatever their lengths; tables of tables likewise.


def _emptied(option: Option) -> list[str]:
    try:
        value = load_yaml(option.value) if option.name and option.value and not option.name.endswith("+") else None
    except (yaml.YAMLError, UnicodeError):
        value = None
    empty = _empty(value)
    return [*([] if empty is None else [f"--{option.name}={empty}"]), *option.for_parser]


def _with_emptied_lists(files: list[str], tables: list[dict[str, Any]]) -> Iterator[str]:
    """The files, each after a text that empties the lists of earlier files which it replaces."""
    before: set[tuple[str, ...]] = set()
    for file, table in zip(files, tables, strict=True):
        lists = dict(_lists(table))
        replaced = {place: empty for place, empty in lists.items() if place in before}
        if replaced:
            yield text_of(_nested(replaced))
        before |= set(lists)
        yield file


def _lists(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Places of a file with a list of tables, or a table of tables, and the empty value of each."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        here = (*place, str(name))
        empty = _empty(inner) if place and name != "init_args" else None
        if empty is not None:
            yield here, empty
        else:
            yield from _lists(inner, here)


def _empty(value: Any) -> Any:
    """The empty value of a list with tables, or of a table of tables that describes no class; null for any other."""
    if isinstance(value, list):
        return [] if any(isinstance(one, dict) for one in value) else None
    tables = [value, *value.values()] if isinstance(value, dict) and value else [None]
    return {} if all(isinstance(one, dict) and not SPECIFICATION & set(one) for one in tables) else None


def _nested(values: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for place, value in values.items():
        inner = tree
        for name in place[:-1]:
            inner = inner.setdefault(name, {})
        inner[place[-1]] = value
    return tree
