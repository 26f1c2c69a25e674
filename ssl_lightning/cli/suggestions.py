"""The parser's messages in plain words, with the form that was meant."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches

import lightning.pytorch as pl

from ssl_lightning import callbacks, clustering, data, evaluation, methods, models, optim
from ssl_lightning.arguments import options_in
from ssl_lightning.checkpoints.allowlist import admitted_names
from ssl_lightning.cli.config_names import config_names
from ssl_lightning.data import ImageModule

ALIASES = {
    "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "seed": "seed_everything",
    "lr": "model.optimizer.lr",
    "learning_rate": "model.optimizer.lr",
    "weight_decay": "model.optimizer.weight_decay",
    "gpus": "trainer.devices",
    "workers": "data.num_workers",
    "data_dir": "data.path",
    "checkpoint": "ckpt_path",
    "resume": "resume.policy",
    "output": "run.dir",
    "name": "run.name",
    "arch": "model.backbone.name",
    "backbone": "model.backbone",
}
"""Options that other programs have, and what gives the same here."""
NO_OPTIONS = {
    "weights_only": "checkpoints are always read as tensors and plain values alone",
    "verbose": "validate and test print one table of all results",
    "return_predictions": "callbacks such as WriteClusters, and `ssl-lightning embed`, write what predict computes",
}
"""Arguments of Lightning's functions that are no options here, and why."""
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "tuple": "a list such as [1, 2]",
    "list": "a list such as [1, 2]",
    "dict": "a table such as {name: value}",
}
"""Types of values in words."""
_UNKNOWN = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)
_KEY = re.compile(r'Parser key "([^"]+)":')
_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NESTED = re.compile(r"NestedArg\(key='([^']*)'")
_TYPE = re.compile(r"Expected an? <class '(\w+)'>")
_GIVEN = re.compile(r"(?:Given value|Got value): (.*)\Z", re.DOTALL)


def plain(message: str, options: Iterable[str]) -> str:
    """A message of the parser as one sentence; others as they are.

    Args:
        message: Of the parser.
        options: Names of the parser's options.
    """
    if "the following arguments are required" in message and "model" in message:
        return (
            "found no method; expected a configuration, such as --config swav --config data/cifar10: "
            "`ssl-lightning config` lists them"
        )
    unknown = _UNKNOWN.match(message)
    if unknown:
        names = [name for name in options if not name.startswith("-")]
        return _unknown(unknown[1].split()[0], names if "trainer" not in names else [*names, *_common_options()])
    key = _KEY.match(message)
    return message if key is None else _value(key[1], message)


def closest(name: str, names: Iterable[str], number: int = 3) -> list[str]:
    """The names most like a misspelled one, whatever their case; the best first."""
    by_case = {each.lower(): each for each in names}
    return [by_case[each] for each in get_close_matches(name.lower(), list(by_case), n=number, cutoff=0.6)]


def _unknown(argument: str, options: list[str]) -> str:
    (option,) = options_in([argument])
    name = option.name
    if not name:
        is_config = argument in config_names()
        return f"found {argument} without an option; expected " + (
            f"--config {argument}" if is_config else "options such as --config swav"
        )
    if name in NO_OPTIONS:
        return f"found --{name}, which is no option: {NO_OPTIONS[name]}; leave it out"
    meant = " or ".join(f"--{option}" for option in _meant(name, options)) or "one of those that --help lists"
    return f"found the option --{name}, which is not known; expected {meant}"


def unknown_key(key: str, where: str) -> str:
    """One line for a key of a configuration that no subcommand with a trainer has.

    Args:
        key: With the sections that it stands in.
        where: The same with the name of the file.
    """
    if key in NO_OPTIONS:
        return f"found {where}, which is no option: {NO_OPTIONS[key]}; leave it out"
    meant = " or ".join(_meant(key, _common_options())) or "one of the names that --print_config= shows"
    return f"found {where}, which is not known; expected {meant}"


def _meant(name: str, options: list[str]) -> list[str]:
    """The options that an unknown name may mean, at most three."""
    same_end = [option for option in options if option.rpartition(".")[2] == name]
    alias = [ALIASES[name]] if ALIASES.get(name) in options or ALIASES.get(name, "").startswith("model.") else []
    return (alias or same_end or closest(name, options))[:3]


def _common_options() -> list[str]:
    """Options of every method and source; those of one class are known to the parser alone."""
    return [
        *(f"trainer.{name}" for name in inspect.signature(pl.Trainer).parameters),
        *(f"data.{field.name}" for field in fields(ImageModule)),
        *("run.name", "run.dir", "run.start_from", "run.save_every_n_epochs", "run.save_every_n_steps"),
        *(
            "resume.policy",
            "resume.allow_config_change",
            "doctor.on_collapse",
            "seed_everything",
            "ckpt_path",
            "config",
        ),
    ]


def _value(key: str, message: str) -> str:
    nested, names, given = _NESTED.search(message), _CLASS.findall(message), _GIVEN.search(message)
    if nested:
        return (
            f"found --{key}.{nested[1]}; expected --{key} alone, with a configuration: write a YAML file, or give a "
            "name such as data/folder"
        )
    types = [TYPES[name] for name in dict.fromkeys(_TYPE.findall(message)) if name in TYPES and name != "NoneType"]
    if types and given:
        return f"found {key}={given[1].strip()}; expected {' or '.join(types)}{_as_list(given[1], types)}"
    if names:
        meant = closest(names[0], {name.rpartition(".")[2] for name in admitted_names()} | _our_classes())
        suggestion = f"; expected a class such as {', '.join(meant)}" if meant else "; expected the name of a class"
        return f"found {key}={names[0]}{suggestion}"
    return message


def _as_list(given: str, types: list[str]) -> str:
    """The form of a list, for values that are separated by commas."""
    wants_list = any(text.startswith("a list") for text in types)
    return f": [{given.strip()}]" if wants_list and re.fullmatch(r"\s*[\w.+-]+(\s*,\s*[\w.+-]+)*\s*", given) else ""


def _our_classes() -> set[str]:
    """Names of the public classes of this package."""
    return {cls.__name__ for cls in _classes()}


def arguments_of_classes() -> set[str]:
    """Names of the arguments of all public classes of this package."""
    return {name for cls in _classes() for name in inspect.signature(cls).parameters}


def _classes() -> list[type]:
    packages = (callbacks, clustering, data, evaluation, methods, models, optim)
    named = (getattr(package, name) for package in packages for name in package.__all__)
    return [one for one in named if isinstance(one, type)]
