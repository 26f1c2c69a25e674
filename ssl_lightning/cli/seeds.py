"""One seed for a whole run: `--seed_everything`, which the data take over."""

import os
from collections.abc import Iterator
from typing import Any

import yaml

from ssl_lightning.arguments import configs_in, options_in
from ssl_lightning.errors import UsageError
from ssl_lightning.safe_yaml import load_yaml, read_yaml

HIGHEST_SEED = 2**32 - 1
"""Of numpy."""


def check_seed(seed: int | bool, arguments: list[str]) -> None:
    """Reject a seed that numpy does not take, and another one for the data, which would have no effect.

    The configuration that a run writes repeats the seed in the section of the data; it may be used with another
    `--seed_everything`.

    Args:
        seed: Of everything.
        arguments: Of the command line of `fit`, its files included.

    Raises:
        UsageError: If so.
    """
    if not 0 <= int(seed) <= HIGHEST_SEED:
        raise UsageError(f"found --seed_everything {seed}; expected 0 to {HIGHEST_SEED}")
    for own, beside in _seeds_of_data(arguments):
        if own is not None and own not in (int(seed), beside):
            raise UsageError(
                f"found data.seed={own} and --seed_everything {int(seed)}; expected one seed for weights, order and "
                f"views: give --seed_everything {own}"
            )


def _seeds_of_data(arguments: list[str]) -> Iterator[tuple[Any, Any]]:
    """Each seed of the data, and the seed of everything in the same file."""
    for config in configs_in(arguments):
        table = _table(config)
        yield _own_seed(table.get("data")), table.get("seed_everything")
    for option in options_in(arguments):
        if option.name in ("data.seed", "data.init_args.seed"):
            yield load_yaml(option.value or ""), None
        elif option.name in ("data", "data.init_args"):
            value = load_yaml(option.value or "")
            yield _own_seed(value if option.name == "data" else {"init_args": value}), None


def _own_seed(data: Any) -> Any:
    arguments = data.get("init_args", data) if isinstance(data, dict) else None
    return arguments.get("seed") if isinstance(arguments, dict) else None


def _table(config: str) -> dict[str, Any]:
    """What a file sets, or YAML text; empty for standard input, which the parser has read."""
    if config == "-":
        return {}
    try:
        table = read_yaml(config) if os.path.isfile(config) else load_yaml(config)
    except yaml.YAMLError:  # a name, which the parser has resolved
        return {}
    return table if isinstance(table, dict) else {}
