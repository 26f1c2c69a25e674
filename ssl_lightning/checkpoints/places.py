"""Comparison of a description with the declared types of its places, before any object is created.

A description is the content of a configuration, the `hyper_parameters` of a checkpoint or the metadata of a stage file:
plain values and tables `{class_path, init_args}`. It may name classes and nothing else, each of a kind that the
declared type of its place contains. Functions, methods, alternate constructors, instances and modules are rejected.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from importlib import import_module
from pathlib import PurePath
from typing import Any, Union, get_args, get_origin

import torch
from jsonargparse import Namespace
from jsonargparse import Path as ParsersPath

from ssl_lightning.checkpoints.kinds import (
    KINDS,
    OUR_MODULES,
    OURS,
    VARIABLE,
    library_classes,
    plugin_packages,
    rejection,
)
from ssl_lightning.checkpoints.plain import class_path
from ssl_lightning.errors import UsageError

PLAIN = (bool, int, float, complex, str, bytes, PurePath, timedelta, Enum, torch.device)
UNTYPED = Any
_SPEC = {"class_path", "init_args", "dict_kwargs"}
_PARSERS_OWN = ("__path__",)
"""Entries that the parser adds to the values: the file of a table."""


@dataclasses.dataclass(frozen=True)
class Described:
    """A class in a description.

    Attributes:
        place: Its place in the description, for errors.
        cls: The class.
        arguments: Its `init_args`, which may be changed.
    """

    place: str
    cls: type
    arguments: Any


def check_arguments(values: Any, hints: Mapping[str, Any], place: str, defaults: Mapping[str, Any]) -> list[Described]:
    """Compare a table of arguments with their declared types.

    Args:
        values: Values by name.
        hints: Declared types by name; an argument without one takes plain values only.
        place: Place of the table, for errors.
        defaults: Defaults by name; a value equal to its default is accepted.

    Returns:
        Every class in the table, outermost first.

    Raises:
        UsageError: For a name that is not admitted or does not exist.
    """
    found: list[Described] = []
    for name, value in _items(values):
        here = f"{place}.{name}" if place else name
        if name not in defaults or not _is_default(value, defaults[name]):
            found += _check(value, hints.get(name, UNTYPED), here)
    return found


def check_call(function: Callable[..., Any], values: Any, place: str = "") -> list[Described]:
    """`check_arguments` for the arguments of a class or function."""
    hints, defaults = signature_of(function)
    return check_arguments(values, hints, place, defaults)


def leave_out_default_functions(described: Iterable[Described]) -> None:
    """Remove arguments with a default that is a function, in place.

    The parser writes such a default as the name of the function, which it could not read again, since no file may name
    one.
    """
    for one in described:
        for name, default in signature_of(one.cls)[1].items():
            if inspect.isfunction(default) and one.arguments.get(name) == _name_of(default):
                del one.arguments[name]


def class_named(name: Any, place: str) -> type:
    """The class of an admitted name; only listed modules are imported for it.

    Raises:
        UsageError: For any other name.
    """
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")) or "." not in name:
        raise UsageError(f"found {name!r} at {place}; expected the import path of a class")
    known = library_classes().get(name)
    if known is not None:
        return known
    root = name.partition(".")[0]
    if root != OURS and root not in plugin_packages():
        reason = rejection(name)
        if reason is not None:
            raise UsageError(f"found {name} at {place}, which is not admitted: {reason}")
        raise UsageError(
            f"found {name} at {place}; expected a public class that fits there: to use one of a package of your own, "
            f"name the package in the environment variable {VARIABLE}"
        )
    cls = _own_class(name)
    if not inspect.isclass(cls) or not _is_public_name(name, cls, root):
        raise UsageError(f"found {name} at {place}, which is no class of {root}; expected the public name of a class")
    if root == OURS and (reason := rejection(class_path(cls))):
        raise UsageError(f"found {name} at {place}, which is not admitted: {reason}")
    return cls


def signature_of(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Declared types and defaults of the arguments of a class or function.

    A class that passes `**kwargs` on also has the arguments of its bases, as far as they are declared.
    """
    if not inspect.isclass(function):
        return _declared(function)
    hints: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for base in function.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        own_hints, own_defaults = _declared(constructor)
        hints, defaults = own_hints | hints, own_defaults | defaults
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(constructor).parameters.values()):
            break
    return hints, defaults


def _check(value: Any, hint: Any, place: str) -> list[Described]:
    if value is None or isinstance(value, PLAIN):
        return []
    if isinstance(value, Namespace | dict) and "class_path" in value:
        return _check_spec(value, hint, place)
    if isinstance(value, Namespace | dict):
        hints, defaults = _fields(hint)
        inner = dict.fromkeys((name for name, _ in _items(value)), item_type(hint)) | hints
        return check_arguments(value, inner, place, defaults)
    if isinstance(value, list | tuple | set | frozenset):
        item = item_type(hint)
        return [one for number, each in enumerate(value) for one in _check(each, item, f"{place}.{number}")]
    if inspect.isclass(value):
        _reject_misplaced(class_named(class_path(value), place), hint, place, as_class=True)
        return []
    raise UsageError(f"found {_named(value)} at {place}; expected plain values and classes, since no file may name it")


def _check_spec(spec: Any, hint: Any, place: str) -> list[Described]:
    odd = {name for name, _ in _items(spec)} - _SPEC
    if odd:
        raise UsageError(f"found {', '.join(sorted(odd))} beside class_path at {place}; expected init_args alone")
    cls = class_named(spec["class_path"], place)
    _reject_misplaced(cls, hint, place)
    arguments = spec.get("init_args")
    found = [Described(place, cls, arguments if arguments is not None else {})]
    found += check_call(cls, arguments, place) if arguments else []
    for name, value in _items(spec.get("dict_kwargs") or {}):
        if _check(value, UNTYPED, f"{place}.{name}") or _is_pathlike(value):
            raise UsageError(f"found {name}={value!r} at {place}; expected plain values, and no paths, in dict_kwargs")
    return found


def _reject_misplaced(cls: type, hint: Any, place: str, as_class: bool = False) -> None:
    """Reject a class that is not of a kind in the declared type of its place."""
    declared = [base for base, is_class in classes_in(hint) if is_class == as_class]
    held = [(base, kind) for base in declared for kind in KINDS if issubclass(base, kind.cls)]
    if not any(issubclass(cls, base) and kind.admits(cls) for base, kind in held):
        expected = " or ".join(dict.fromkeys(class_path(base) for base, _ in held)) or (
            "plain values alone, since no type is declared there that can be resolved at run time and holds classes"
        )
        raise UsageError(f"found {class_path(cls)} at {place}; expected {expected}")


def _own_class(name: str) -> Any:
    """The object under a name of this package or a plugin; None if there is none."""
    module, _, attribute = name.rpartition(".")
    root, _, inner = module.partition(".")
    if root == OURS and inner.partition(".")[0] not in OUR_MODULES:
        return None
    try:
        return getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise  # a dependency of a plugin is missing
        return None


def _is_public_name(name: str, cls: type, root: str) -> bool:
    """Whether a class has this name in the module of its definition, or in a package that re-exports it."""
    module, defined_in = name.rpartition(".")[0], cls.__module__.partition(".")[0]
    if root != OURS:
        return defined_in in plugin_packages()
    return defined_in == OURS and (name == class_path(cls) or hasattr(import_module(module), "__path__"))


def classes_in(hint: Any) -> Iterator[tuple[type, bool]]:
    """Classes in a declared type, and whether the value is a class itself (`type[...]`)."""
    origin = get_origin(hint)
    if origin is typing.Annotated:
        yield from classes_in(get_args(hint)[0])
    elif origin is type:
        for argument in get_args(hint):
            yield from ((base, True) for base, _ in classes_in(argument))
    elif origin is not None and _is_callable(origin):
        yield from ((base, False) for base in _made_by(hint))
    elif origin is not None:
        for argument in get_args(hint):
            yield from classes_in(argument)
    elif inspect.isclass(hint):
        yield hint, False


def _made_by(hint: Any) -> Iterator[type]:
    """The result types of a `Callable[..., X]` for which a class may stand."""
    arguments = get_args(hint)
    made = classes_in(arguments[-1]) if arguments else ()
    factories = [kind.cls for kind in KINDS if kind.factory]
    yield from (base for base, _ in made if any(issubclass(base, factory) for factory in factories))


def _fields(hint: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Types and defaults of the fields of a dataclass of options."""
    groups = [base for base, is_class in classes_in(hint) if not is_class and dataclasses.is_dataclass(base)]
    return signature_of(groups[0]) if groups else ({}, {})


def item_type(hint: Any) -> Any:
    """The declared type of the items of a list or table, without functions."""
    origin = get_origin(hint)
    if origin is typing.Annotated:
        return item_type(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        items = [item_type(each) for each in get_args(hint)]
        return Union[tuple(items)] if items else UNTYPED  # noqa: UP007  # the number of types is known at run time
    if origin in (None, type, typing.Literal) or _is_callable(origin):
        return UNTYPED
    arguments = [each for each in get_args(hint) if each is not Ellipsis]
    if issubclass(origin, Mapping):
        return arguments[1] if len(arguments) == 2 else UNTYPED
    return Union[tuple(arguments)] if arguments else UNTYPED  # noqa: UP007


def _declared(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    parameters = inspect.signature(function).parameters
    hints = _hints(function)
    named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    defaults = {name: p.default for name, p in named.items() if p.default is not inspect.Parameter.empty}
    return {name: hints.get(name, UNTYPED) for name in named if name != "self"}, defaults


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Declared types, without names that are imported for type checkers only."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        pass
    names = getattr(inspect.unwrap(function), "__globals__", {})
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():

        def alone() -> None: ...

        alone.__annotations__ = {name: annotation}
        with suppress(NameError, TypeError, AttributeError):
            hints |= typing.get_type_hints(alone, names)
    return hints


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def _name_of(function: types.FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _is_callable(origin: Any) -> bool:
    return origin is Callable or origin is typing.Callable or getattr(origin, "__name__", "") == "Callable"


def _is_pathlike(value: Any) -> bool:
    return isinstance(value, str | PurePath) and ("/" in str(value) or "\\" in str(value) or ".." in str(value))


def _items(values: Any) -> list[tuple[str, Any]]:
    table = vars(values) if isinstance(values, Namespace) else values or {}
    return [(str(name), value) for name, value in table.items() if not _is_parsers_own(str(name), value)]


def _is_parsers_own(name: str, value: Any) -> bool:
    return name in _PARSERS_OWN and isinstance(value, ParsersPath)


def _named(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return f"the {type(value).__name__} {value.__module__}.{name}" if name else f"a {type(value).__name__}"
