"""Objects of a configuration: what the constructors of other packages reject is a mistake of the user."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ssl_lightning.checkpoints.kinds import OURS, plugin_packages
from ssl_lightning.checkpoints.places import Described
from ssl_lightning.checkpoints.plain import class_path
from ssl_lightning.cli.extras import install_command
from ssl_lightning.errors import RunStoppedError, UsageError, one_line

EXTRAS = {"tensorboard": "tensorboard", "tensorboardX": "tensorboard"}
"""Optional packages, and the extra of this package that installs each."""
TRAINERS_REJECTIONS = (MisconfigurationException, ValueError, TypeError, RuntimeError)
"""Errors by which Lightning's trainer rejects its options."""


class Instantiation:
    """Calls the constructors of the classes that a configuration names.

    The parser wraps what a constructor raises, once for every level of the configuration; the error itself is raised
    here. Optimizers are built later, by the method, and through the same calls.

    Args:
        parser: Of the command line.
        described: The classes with their places in the configuration.
    """

    def __init__(self, parser: ArgumentParser, described: Iterable[Described]) -> None:
        self._parser, self._described = parser, list(described)
        self._failure: Exception | None = None

    def __call__(self, config: Namespace) -> Namespace:
        """The configuration with an object in place of each class that it names.

        Raises:
            UsageError: A class rejects its arguments, or needs a package that is not installed.
        """
        self._failure = None
        build: Any = self._build  # the parser's type names its parameter
        try:
            return self._parser.instantiate(config, instantiators=[(build, object, True)])
        except Exception as error:
            failure = self._failure or error
        raise failure

    def _build(self, cls: type, *args: Any, **arguments: Any) -> Any:
        places = dict.fromkeys(one.place for one in self._described if one.cls is cls)
        place = " or ".join(places) or class_path(cls)
        try:
            with rejects_settings(lambda _: place, class_path(cls), *_rejections(cls)):
                _check_names(cls, args, arguments, place)
                return cls(*args, **arguments)
        except Exception as error:
            self._failure = self._failure or error
            raise


@contextmanager
def rejects_settings(place: Callable[[str], str], name: str, *rejections: type[Exception]) -> Iterator[None]:
    """A call of another package with the user's settings.

    Args:
        place: Where the settings stand in the configuration, from the message of the error.
        name: What rejects them, for the error.
        rejections: Types of error by which it does.

    Raises:
        UsageError: For one of these, or a package that is not installed.
    """
    try:
        yield
    except RunStoppedError:
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == OURS:
            raise
        raise UsageError(_missing_package(error)) from error
    except rejections as error:
        reason = one_line(str(error)) or type(error).__name__
        raise UsageError(f"found {place(reason)} with settings that {name} rejects ({reason}); change them") from error


def place_in_trainer(options: Namespace) -> Callable[[str], str]:
    """The options of the trainer that its error message names, by their names or values.

    Args:
        options: Of the trainer, as parsed.
    """

    def place(message: str) -> str:
        words = set(re.findall(r"\w+", message))
        given = {name: value for name, value in vars(options).items() if value is not None}
        named = [name for name in given if name in words] or [
            name for name, value in given.items() if isinstance(value, str) and value in words
        ]
        return " and ".join(f"trainer.{name}" for name in named) or "trainer"

    return place


def _rejections(cls: type) -> tuple[type[Exception], ...]:
    """Errors by which a constructor rejects its arguments: any of a library's, ValueErrors of the user's own classes.

    Classes of this package raise `UsageError` and `DataError`; any other error of theirs is a failure of the package.
    """
    package = cls.__module__.partition(".")[0]
    if package == OURS:
        return ()
    return (ValueError, MisconfigurationException) if package in plugin_packages() else (Exception,)


def _check_names(cls: type, args: tuple[Any, ...], arguments: dict[str, Any], place: str) -> None:
    """Reject arguments that a constructor does not have, which only `dict_kwargs` can give."""
    try:
        signature = inspect.signature(cls)
    except (ValueError, TypeError):  # some classes of C have none
        return
    try:
        signature.bind(*args, **arguments)
    except TypeError as error:
        raise UsageError(f"found {place} with arguments that {class_path(cls)} does not take ({error})") from error


def _missing_package(error: ModuleNotFoundError) -> str:
    named = [package for package in EXTRAS if re.search(rf"\b{package}\b", str(error))]
    install = install_command(EXTRAS[named[0]]) if named else f"pip install {error.name or ''}".strip()
    return f"found no package for what the configuration names ({one_line(str(error))}); install it: {install}"
