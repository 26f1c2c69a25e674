"""What was meant: options, arguments and classes like a misspelled one, each of its place alone."""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches

import lightning.pytorch as pl
import timm

from ssl_lightning import callbacks, clustering, data, evaluation, methods, models, optim, runs
from ssl_lightning.arguments import options_in
from ssl_lightning.checkpoints.kinds import KINDS, OURS, library_classes, plugin_packages, rejection
from ssl_lightning.checkpoints.places import class_named
from ssl_lightning.checkpoints.plain import class_path
from ssl_lightning.checkpoints.renamed import renamed_key
from ssl_lightning.cli.config_names import config_names
from ssl_lightning.data import ImageModule
from ssl_lightning.errors import UsageError
from ssl_lightning.methods.checks import PRECISIONS

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
PRECISION_SYNONYMS = {
    **dict.fromkeys(("fp16", "float16", "half", "amp", "mixed"), "16-mixed"),
    **dict.fromkeys(("bfloat16", "bf16-true"), "bf16-mixed"),
    **dict.fromkeys(("fp32", "float32", "float", "single", "full"), "32-true"),
}
"""Names of precisions in other programs."""
NO_METHOD = (
    "found no method; expected a configuration, such as --config swav --config data/cifar10: `ssl-lightning config` "
    "lists them"
)
CONFIG_FOR = {"validate": "eval", "test": "eval", "predict": "clusters"}
"""Packaged configurations of the subcommands that take the method of a checkpoint."""
WORDS = {
    "Backbone": "backbones",
    "Callback": "callbacks",
    "Clusterer": "clusterers",
    "FeatureTransform": "transforms",
    "ImageModule": "data sources",
    "Logger": "loggers",
    "Method": "methods",
    "Optimizer": "optimizers",
    "Probe": "probes",
    "Schedule": "schedules",
}
"""Kinds of classes in words."""
MOST = 4
"""Classes in a message; arguments: three times as many."""


def no_method(arguments: Sequence[str]) -> str:
    """The error for a command without a method.

    Args:
        arguments: Of the command line, the subcommand first.
    """
    config = CONFIG_FOR.get(arguments[0]) if arguments else None
    if config and any(option.name == "ckpt_path" for option in options_in(arguments)):
        return f"found no configuration; expected --config {config}, with the method and the images of the checkpoint"
    return NO_METHOD


def closest(name: str, names: Iterable[str], number: int = 3) -> list[str]:
    """The names most like a misspelled one, whatever their case; the best first."""
    by_case = {each.lower(): each for each in names}
    return [by_case[each] for each in get_close_matches(name.lower(), list(by_case), n=number, cutoff=0.6)]


def unknown_option(argument: str, options: Iterable[str]) -> str:
    """The error for an option that the parser does not have, or for a word that stands alone.

    Args:
        argument: As typed.
        options: Names of the parser's options.
    """
    names = [name for name in options if not name.startswith("-")]
    return _unknown(argument, names if "trainer" not in names else [*names, *_common_options()])


def expected_name(name: str, owner: str, names: list[str], others: Iterable[str] = ()) -> str:
    """What an error for an unknown name expects.

    Args:
        name: As given.
        owner: Class with these arguments; empty for a group of options.
        names: Those of its place.
        others: More that may be meant.
    """
    if ":" in name:
        return f"a space after the colon, as in {name.replace(':', ': ', 1)}"
    if renamed := renamed_key(name):
        return renamed
    first_parts = list(dict.fromkeys(one.partition(".")[0] for one in names))
    ends = {one.rpartition(".")[2]: one for one in names}
    alias = [ALIASES[name]] if ALIASES.get(name) in names else []
    same_end = [one for one in names if one.rpartition(".")[2] == name]
    close = alias or same_end or closest(name, [*first_parts, *others]) or [ends[one] for one in closest(name, ends)]
    if close:
        return f"a name such as {', '.join(close[:3])}" + (f" (arguments of {owner})" if owner else "")
    listed = ", ".join(first_parts[: 3 * MOST])
    more = f" and {len(first_parts) - 3 * MOST} more" if len(first_parts) > 3 * MOST else ""
    images = (
        "; for images of your own: --config data/folder --data.path PATH" if _is_path_of_source(owner, name) else ""
    )
    return f"one of the arguments of {owner}: {listed}{more}{images}" if owner else f"one of {listed}{more}"


def _is_path_of_source(owner: str, name: str) -> bool:
    """Whether a path is given to a source of data that has none, such as Digits, the default of all recipes."""
    return name == "path" and owner in (cls.__name__ for cls in classes_for(ImageModule))


def expected_precision(value: object) -> str:
    """What `trainer.precision` takes.

    Args:
        value: As given.
    """
    name = str(value).lower()
    meant = PRECISION_SYNONYMS.get(name) or next(iter(closest(name, PRECISIONS)), None)
    return "32-true, bf16-mixed or 16-mixed" + (f" (did you mean {meant}?)" if meant else "")


def expected_class(name: str, bases: Iterable[type]) -> str:
    """What an error for a wrong class expects.

    Args:
        name: As given; empty for something else than a name.
        bases: Classes that the place takes.
    """
    bases = list(bases)
    known = [cls for base in bases for cls in classes_for(base)]
    names = list(dict.fromkeys(cls.__name__ for cls in known))
    close = closest(name.rpartition(".")[2], names) if name and "/" not in name else []
    expected = f"a class such as {', '.join(close or names[:MOST])}" if names else "the name of a class"
    if known and all(cls.__module__.startswith(f"{OURS}.") for cls in known):
        kind = " or ".join(dict.fromkeys(WORDS.get(base.__name__, f"a {base.__name__}") for base in bases))
        expected += f" ({kind} of this package)"
    if ImageModule in bases and name in config_names():
        return f"{expected}, or --config {name}"
    if ImageModule in bases and "/" in name:
        return f"{expected}; for images at {name}: --data UncuratedImages or CuratedImages, and --data.path {name}"
    return expected + (_network(name) if models.Backbone in bases else "")


def class_of(name: str, bases: Iterable[type]) -> type | None:
    """The class of a name or an import path, if the place takes it.

    Args:
        name: As given.
        bases: Classes that the place takes.
    """
    bases = tuple(bases)
    for cls in (cls for base in bases for cls in classes_for(base)):
        if name in (cls.__name__, class_path(cls)):
            return cls
    try:
        cls = class_named(name, "")
    except UsageError:
        return None
    return cls if issubclass(cls, bases) else None


def classes_for(base: type) -> list[type]:
    """Public classes that a place of a type takes, those of this package first.

    Args:
        base: Declared type of the place.
    """
    kinds = [kind for kind in KINDS if issubclass(base, kind.cls) or base is object]
    known = [*_our_classes(), *library_classes().values(), *_of_plugins(base)]
    found = [cls for cls in known if issubclass(cls, base) and any(kind.admits(cls) for kind in kinds)]
    admitted = (cls for cls in found if not inspect.isabstract(cls) and rejection(class_path(cls)) is None)
    return list(dict.fromkeys(admitted))


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


def unknown_key(key: str, where: str, options: Iterable[str]) -> str:
    """One line for a key of a configuration that no subcommand with a trainer has.

    Args:
        key: With the sections that it stands in.
        where: The same with the name of the file.
        options: Names of the options that belong to no class.
    """
    if key in NO_OPTIONS:
        return f"found {where}, which is no option: {NO_OPTIONS[key]}; leave it out"
    known = list(dict.fromkeys([*options, *_common_options()]))
    meant = " or ".join(_meant(key, known)) or "one of the names that --print_config= shows"
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
        "run.save_clusters",
        *(
            "resume.policy",
            "resume.allow_config_change",
            "doctor.on_collapse",
            "seed_everything",
            "ckpt_path",
            "config",
        ),
    ]


def _network(name: str) -> str:
    """How a network of timm is named, for its name in the place of a class."""
    close = closest(name, timm.list_models()) if name else []
    return f"; for {close[0]} of timm: TimmBackbone with name {close[0]}" if close else ""


def _our_classes() -> list[type]:
    """The public classes of this package."""
    packages = (callbacks, clustering, data, evaluation, methods, models, optim, runs)
    named = (getattr(package, name) for package in packages for name in package.__all__)
    return [one for one in named if isinstance(one, type)]


def _of_plugins(base: type) -> list[type]:
    """Classes of plugins that are imported."""
    below = [] if base is object else base.__subclasses__()
    inner = [cls for each in below for cls in _of_plugins(each)]
    return [cls for cls in [*below, *inner] if cls.__module__.partition(".")[0] in plugin_packages()]
