"""What a command line gives: its configuration files, and its other options with their values."""

from collections.abc import Callable
from itertools import pairwise

CONFIG = "--config"


def configs_in(arguments: list[str]) -> list[str]:
    """Values of `--config FILE` and `--config=FILE` in their order; each is a file, a name, or YAML text."""
    starts = f"{CONFIG}="
    parts = [part for text in arguments for part in (text.split("=", 1) if text.startswith(starts) else [text])]
    return [value for option, value in pairwise(parts) if option == CONFIG]


def values_in(arguments: list[str]) -> list[str]:
    """Values of the options other than `--config`, as typed, and arguments that stand alone."""
    return [value for _, value in options_in(arguments)]


def options_in(arguments: list[str]) -> list[tuple[str, str]]:
    """Options other than `--config`, without their dashes, with each value as typed.

    An argument that stands alone has the option before it, or an empty name.
    """
    parts = [part for text in arguments for part in (text.split("=", 1) if text.startswith("--") else [text])]
    found, option = [], ""
    for before, part in pairwise(["", *parts]):
        if part.startswith("--"):
            option = part[2:]
        elif before != CONFIG:
            found.append((option, part))
    return found


def with_configs(arguments: list[str], resolve: Callable[[str], str]) -> list[str]:
    """The arguments with each value of `--config` resolved, in the form in which it was given.

    Args:
        arguments: Of the command line.
        resolve: From a value to the one that takes its place.
    """
    found: list[str] = []
    for before, argument in pairwise(["", *arguments]):
        if before == CONFIG:
            found.append(resolve(argument))
        elif argument.startswith(f"{CONFIG}="):
            found.append(f"{CONFIG}={resolve(argument.partition('=')[2])}")
        else:
            found.append(argument)
    return found
