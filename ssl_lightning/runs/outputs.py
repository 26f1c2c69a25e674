"""Outputs: what a configuration file makes a run write stays in the folder of the run.

The command line may name any path. A file may name relative ones, which are taken from the folder of the run.
"""

import logging
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import yaml

from ssl_lightning.checkpoints.kinds import written_arguments
from ssl_lightning.checkpoints.places import Described
from ssl_lightning.command_line import values_in
from ssl_lightning.safe_yaml import load_yaml
from ssl_lightning.stops import UsageError

log = logging.getLogger(__name__)


def keep_inside(described: Iterable[Described], folder: Path, arguments: list[str]) -> None:
    """Take the paths that files name from the folder of the run, in place.

    Args:
        described: Classes of the configuration with their arguments, as `check_arguments` gives them.
        folder: Of the run.
        arguments: Of the command line. A path that stands there, as the value of an option, is taken as it is.

    Raises:
        UsageError: For a path of a file that leads out of the folder.
    """
    typed = given_values(arguments)
    for one in described:
        for name, begins in written_arguments(one.cls).items():
            value = one.arguments.get(name)
            if not isinstance(value, str | PurePath) or str(value) in typed or str(value) == "":
                continue
            _refuse_outside(str(value), f"{one.place}.{name}")
            if begins:
                one.arguments[name] = str(folder / value)
                log.info(f"{one.place}.{name} of a configuration file: {folder / value}")


def given_values(arguments: list[str]) -> set[str]:
    """Every string among the values of options, those within lists and tables included; files of --config are none."""
    found: set[str] = set()
    for text in values_in(arguments):
        try:
            found |= {text, *_strings(load_yaml(text))}
        except yaml.YAMLError:
            found.add(text)
    return found


def _refuse_outside(value: str, place: str) -> None:
    path = PurePath(value)
    leaves = path.is_absolute() or ".." in path.parts or value.startswith("~") or "\\" in value
    if leaves or "$" in value or "://" in value or "::" in value or "\0" in value:
        raise UsageError(
            f"found {place}: {value!r} in a configuration file; expected a relative path, which is taken from the "
            "folder of the run: give other paths as options of the command line"
        )


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in _strings(item)]
