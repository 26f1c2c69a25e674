"""The recipe of a run: the packaged configurations that it was started with, and the settings that differ from them."""

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from ssl_lightning.arguments import configs_in
from ssl_lightning.cli.config_names import configs_folder
from ssl_lightning.cli.data_of_run import LINKED, text_of
from ssl_lightning.cli.precedence import in_order, is_packaged
from ssl_lightning.runs.resume import computed
from ssl_lightning.safe_yaml import read_yaml

LINKED_PLACES = ("data.init_args.seed", "model.init_args.preprocessing")
"""Settings that others decide, see `CommandLine.add_arguments_to_parser`."""


def recipe_of(parser: LightningArgumentParser, arguments: Sequence[str], config: dict[str, Any]) -> dict[str, Any]:
    """What a run was started from, and what its configuration has otherwise, for `run.json`.

    The packaged files are parsed once more without the files of the user and without options. Where no packaged file
    names the method or the data, the defaults of their classes take its place. Data with arguments that have no
    default are not compared.

    Args:
        parser: Of the subcommand.
        arguments: The subcommand and its options, in order.
        config: The configuration of the run as plain values.

    Returns:
        `of`, names of packaged configurations, else of classes, and `changed`, a list of (setting, value of the recipe,
        value of the run); a setting that one of them does not have is null. Empty where the files alone are no
        configuration.
    """
    files = [file for file in configs_in(arguments) if is_packaged(file)]
    missing = [name for name in ("model", "data") if not any(_names_class(file, name) for file in files)]
    names = [Path(os.path.relpath(file, configs_folder())).with_suffix("").as_posix() for file in files]
    names += [f"the defaults of {config[name]['class_path'].rpartition('.')[2]}" for name in missing]
    classes = [f"--{name}={config[name]['class_path']}" for name in missing]
    given = in_order([arguments[0], *(f"--config={file}" for file in files)])[1:]
    for options in (classes, [*classes, _own_data(config)]):
        recipe = _parsed(parser, [*given, *options])
        if recipe is not None:
            return {"of": names, "changed": _changed(computed(recipe), computed(config))}
    return {}


def _names_class(file: str, section: str) -> bool:
    return isinstance((read_yaml(file).get(section) or {}).get("class_path"), str)


def _own_data(config: dict[str, Any]) -> str:
    data = config["data"]
    arguments = {name: value for name, value in (data.get("init_args") or {}).items() if name not in LINKED}
    return f"--data={text_of({'class_path': data['class_path'], 'init_args': arguments})}"


def _parsed(parser: LightningArgumentParser, options: Sequence[str]) -> dict[str, Any] | None:
    """The configuration of options as plain values; None where the parser rejects them."""
    with _silence():
        try:
            dumped = parser.dump(parser.parse_args(list(options)), skip_link_targets=False, skip_none=False)
        except (SystemExit, Exception):  # a table on a page is not worth a run
            return None
    return yaml.safe_load(dumped)


@contextmanager
def _silence() -> Iterator[None]:
    """A context without the messages of the parser, which has reported all that counts."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _changed(recipe: dict[str, Any], own: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    places = [place for place in dict.fromkeys([*own, *recipe]) if not place.startswith(LINKED_PLACES)]
    return [(place, recipe.get(place), own.get(place)) for place in places if recipe.get(place) != own.get(place)]
