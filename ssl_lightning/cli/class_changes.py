"""Another class in a configuration starts from its own defaults.

The parser would keep each argument of the class before that the new one accepts too, defaults included: a network of
timm would get the stem of the ResNet-18 that it replaces.
"""

import logging
from collections.abc import Collection
from pydoc import locate
from typing import Any

import jsonargparse._typehints as typehints
from jsonargparse import Namespace

from ssl_lightning.checkpoints.plain import class_path as path_of
from ssl_lightning.cli.types_in_words import as_yaml, shortened
from ssl_lightning.data import ImageModule
from ssl_lightning.data.module import LOADER_ARGUMENTS
from ssl_lightning.errors import called_by_parser
from ssl_lightning.processes import rank

log = logging.getLogger(__name__)
_reported: set[str] = set()
_written: set[tuple[str, str]] = set()


def start_from_defaults(written: Collection[tuple[str, str]] = ()) -> None:
    """Make all parsers of this process drop the arguments of a class that another one replaces.

    Args:
        written: Arguments in files of the user, with their values as YAML: they are reported if they are dropped, also
            where they equal the default.
    """
    typehints.discard_init_args_on_class_path_change = _drop  # type: ignore[assignment]
    _reported.clear()
    _written.clear()
    _written.update(written)


def _drop(_: Any, before: Any, after: Any) -> None:
    """Drop the arguments of the class before, in place; log those that the user wrote or that differ from its defaults.

    Args:
        _: A parser.
        before: Description of the class before.
        after: Description of the class that replaces it.
    """
    with called_by_parser():
        if not before or "init_args" not in before or not before["class_path"]:  # none for a dataclass by its fields
            return
        former, present = locate(before["class_path"]), locate(after["class_path"])
        if former is present or not (isinstance(former, type) and isinstance(present, type)):  # which is rejected later
            return
        # what belongs to the recipe and the loader survives another source of images
        are_sources = issubclass(former, ImageModule) and issubclass(present, ImageModule)
        kept = LOADER_ARGUMENTS if are_sources else ()
        arguments = before["init_args"]
        dropped = {name: arguments.pop(name) for name in list(vars(arguments)) if name not in kept}
        defaults = _defaults(former) if dropped else Namespace()  # a base class without arguments has no parser
        for name, value in dropped.items():
            if defaults.get(name) != value or (name, as_yaml(value)) in _written:
                _report(former, present, name, value)


def _defaults(cls: type) -> Namespace:
    return typehints.ActionTypeHint.get_class_parser(path_of(cls)).get_defaults()


def _report(former: type, present: type, name: str, value: Any) -> None:
    argument = f"{name}={shortened(as_yaml(value))} of {former.__name__}"
    line = f"{present.__name__} replaces {former.__name__}: {argument} is dropped"
    if line not in _reported and rank() == 0:
        log.info(line)
    _reported.add(line)
