"""Outputs: what a configuration file makes a run write stays in the folder of the run.

The command line may name any path. A file may name relative ones, which are taken from the folder of the run.
"""

import logging
from collections.abc import Iterable
from pathlib import Path, PurePath

import yaml

from ssl_lightning.arguments import options_in
from ssl_lightning.checkpoints.kinds import written_arguments
from ssl_lightning.checkpoints.places import Described
from ssl_lightning.checkpoints.plain import strings_in
from ssl_lightning.errors import UsageError
from ssl_lightning.safe_yaml import load_yaml

log = logging.getLogger(__name__)


def keep_inside(described: Iterable[Described], folder: Path, arguments: list[str]) -> None:
    """Take the paths that files name from the folder of the run, in place.

    Args:
        described: Classes of the configuration with their arguments, as `check_arguments` gives them.
        folder: Of the run.
        arguments: Of the command line. A path that stands there, as the value of that same option, is taken as it is.

    Raises:
        UsageError: For a path of a file that leads out of the folder.
    """
    for one in described:
        for name, begins in written_arguments(one.cls).items():
            value, place = one.arguments.get(name), f"{one.place}.{name}"
            if not isinstance(value, str | PurePath) or str(value) in given_values(arguments, place):
                continue
            _reject_outside(str(value), place)
            if begins:  # an empty path too, which would be the current folder
                one.arguments[name] = str(folder / value)
                log.info(f"{place} of a configuration file: {folder / value}")


def given_values(arguments: list[str], place: str) -> set[str]:
    """Every string that the command line gives for a place of the configuration, or within a list or table around it.

    The value of another option is not meant: the checkpoint to evaluate is not a file to write a table to.

    Args:
        arguments: Of the command line; files of `--config` are not read.
        place: For example `trainer.callbacks.2.path`.
    """
    found: set[str] = set()
    for option in options_in(arguments):
        names, text = _plain_names(option.name), option.value
        if not names or text is None or _plain_names(place)[: len(names)] != names:
            continue
        try:
            found |= {text, *strings_in(load_yaml(text))}
        except yaml.YAMLError:
            found.add(text)
    return found


def _plain_names(place: str) -> list[str]:
    """Names of a place without what options leave out or add: `init_args`, positions in lists and `+`."""
    names = [name.rstrip("+") for name in place.split(".")]
    return [name for name in names if name != "init_args" and name and not name.isdigit()]


def _reject_outside(value: str, place: str) -> None:
    path = PurePath(value)
    leaves = path.is_absolute() or ".." in path.parts or value.startswith("~") or "\\" in value
    if leaves or "$" in value or "://" in value or "::" in value or "\0" in value:
        raise UsageError(
            f"found {place}: {value!r} in a configuration file; expected a relative path, which is taken from the "
            "folder of the run: give other paths as options of the command line"
        )
