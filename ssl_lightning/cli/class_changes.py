"""Another class in a configuration starts from its own defaults.

The parser would keep each argument of the class before that the new one accepts too, defaults included: a network of
timm would get the stem of the ResNet-18 that it replaces.
"""

import logging
from pydoc import locate
from typing import Any

import jsonargparse._typehints as typehints
from jsonargparse import Namespace

from ssl_lightning.checkpoints.plain import class_path as path_of
from ssl_lightning.data import ImageModule
from ssl_lightning.data.module import LOADER_ARGUMENTS
from ssl_lightning.errors import called_by_parser
from ssl_lightning.processes import rank

log = logging.getLogger(__name__)
_reported: set[str] = set()


def start_from_defaults() -> None:
    """Make all parsers of this process drop the arguments of a class that another one replaces."""
    typehints.discard_init_args_on_class_path_change = _drop  # type: ignore[assignment]
    _reported.clear()


def _drop(_: Any, before: Any, value: Any) -> None:
    """Drop the arguments of the class before, in place, and log those that differ from its defaults.

    Args:
        _: A parser.
        before: Description of the class before.
        value: Description of the class that replaces it.
    """
    with called_by_parser():
        if not before or "init_args" not in before or not before["class_path"]:  # none for a dataclass by its fields
            return
        former, present = locate(before["class_path"]), locate(value["class_path"])
        if former is present or not (isinstance(former, type) and isinstance(present, type)):  # which is rejected later
            return
        arguments = before["init_args"]
        for name in [name for name in vars(arguments) if name not in _kept(former, present)]:
            dropped = arguments.pop(name)
            if not _is_default(former, name, dropped):
                _report(former, present, name, dropped)


def _kept(former: Any, present: Any) -> tuple[str, ...]:
    """Arguments of the method's recipe that survive another source of images: they belong to the loader."""
    are_sources = all(isinstance(each, type) and issubclass(each, ImageModule) for each in (former, present))
    return LOADER_ARGUMENTS if are_sources else ()


def _is_default(cls: Any, name: str, value: Any) -> bool:
    defaults = typehints.ActionTypeHint.get_class_parser(path_of(cls)).get_defaults()
    return defaults.get(name) == value


def _report(former: Any, present: Any, name: str, value: Any) -> None:
    shown = value.as_dict() if isinstance(value, Namespace) else value
    if isinstance(shown, dict) and "class_path" in shown:
        shown = shown["class_path"].rpartition(".")[2]
    line = f"{present.__name__} replaces {former.__name__}: {name}={shown} of {former.__name__} is dropped"
    if line not in _reported and rank() == 0:
        log.info(line)
    _reported.add(line)
