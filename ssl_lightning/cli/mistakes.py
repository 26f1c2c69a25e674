"""What is wrong in a command line and its files, by comparison with the declared types of their places.

The parser names what it rejects by its last name alone, and its messages describe its types. This module reads the same
tables in the same order and describes the first mistake by its full name, its file and what belongs there.
"""

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, get_args

import yaml
from jsonargparse import ArgumentParser, Namespace

from ssl_lightning.arguments import CONFIG, Option
from ssl_lightning.checkpoints.places import classes_in, item_type, signature_of
from ssl_lightning.checkpoints.plain import class_path
from ssl_lightning.cli.expected import Mistake, Place, Typed, Where, bases_of, expected_at, mistake
from ssl_lightning.cli.suggestions import (
    NO_METHOD,
    class_of,
    classes_for,
    expected_class,
    expected_name,
    unknown_key,
)
from ssl_lightning.cli.types_in_words import (
    admits,
    branches,
    in_words,
    is_list,
    is_table,
    length,
)
from ssl_lightning.data import ImageModule
from ssl_lightning.data.module import LOADER_ARGUMENTS
from ssl_lightning.errors import DataError
from ssl_lightning.safe_yaml import load_yaml, read_yaml

SPECIFICATION = ("class_path", "init_args", "dict_kwargs")


class _Rest(dict[str, Any]):
    """The rest of the name of an option, with its value."""


@dataclass
class Search:
    """Reads tables in the order of the parser.

    Attributes:
        types: Declared types of the options that belong to no class.
        classes: The class at each place, as of the last table.
        given: Names of the arguments that tables give at each place.
        passed: By the last name of the place, what to say of a value that fits the type and that the parser rejects.
        including: Files that are read at the moment, the outermost first.
    """

    types: Mapping[str, Any]
    classes: dict[Place, type] = field(default_factory=dict)
    given: dict[Place, set[str]] = field(default_factory=dict)
    passed: dict[str, Mistake] = field(default_factory=dict)
    including: list[str] = field(default_factory=list)

    def in_file(self, file: str, table: Any) -> Iterator[Mistake]:
        """Mistakes of a configuration file.

        Args:
            file: Its name, for messages.
            table: What it sets.
        """
        yield from self._group(self.types, table, Where(file=file)) if isinstance(table, dict) else ()

    def in_option(self, option: Option) -> Iterator[Mistake]:
        """Mistakes of an option."""
        if option.name and option.name != CONFIG and option.value is not None:
            appends = option.name.endswith("+")
            value: Any = Typed(option.value, appends)
            for name in reversed(option.name.removesuffix("+").split(".")):
                value = _Rest({name: value})
            yield from self._group(self.types, value, Where())

    def missing(self, names: Iterable[str]) -> Iterator[str]:
        """What classes require and no table gives.

        Args:
            names: Of arguments, as the parser reports them.
        """
        for place in sorted(self.classes, key=lambda place: any(name.isdigit() for name in place)):
            cls = self.classes[place]
            hints, defaults = signature_of(cls)
            lacking = [name for name in names if name in hints and name not in defaults | self._of(place)]
            if lacking:
                options = " and ".join(f"--{'.'.join(place)}.{name}" for name in lacking)
                at = "" if len(place) == 1 else f" at {'.'.join(place)}"
                yield f"found {cls.__name__}{at} without {' and '.join(lacking)}; expected {options}"

    def _of(self, place: Place) -> dict[str, None]:
        return dict.fromkeys(self.given.get(place, ()))

    def _group(self, types: Mapping[str, Any], table: dict[Any, Any], where: Where) -> Iterator[Mistake]:
        """A table of options with known names, where a name may be the first part of several."""
        for key, value in table.items():
            name = str(key).removesuffix("+")
            here = where.inner(name, str(key))
            inner = {one.removeprefix(f"{name}."): hint for one, hint in types.items() if one.startswith(f"{name}.")}
            if name in types:
                yield from self._value(types[name], value, here)
            elif not inner:
                if name not in (CONFIG, "print_config"):
                    leaf = _leaf(here, value)
                    yield Mistake(leaf.place[-1], unknown_key(".".join(leaf.place), leaf.name, self.types))
            elif isinstance(value, dict):
                yield from self._group(inner, value, here)
            else:
                yield mistake(here, value, "a table of options")

    def _value(self, hint: Any, value: Any, where: Where) -> Iterator[Mistake]:
        parts = branches(hint)
        typed = value if isinstance(value, Typed) else None
        if typed is not None:
            value = _items_of(typed)
        if any(admits(part, value) or (typed and admits(part, typed.text)) for part in parts):
            expected = expected_at(where, hint, [], value)
            self.passed[where.place[-1]] = mistake(where, typed or value, expected)
            return
        bases = bases_of(hint)
        direct = [base for part in parts if not is_list(part) for base, _ in classes_in(part) if base in bases]
        lists, tables = [part for part in parts if is_list(part)], [part for part in parts if is_table(part)]
        if isinstance(value, list) and lists:
            yield from self._list(lists[0], value, where, appended=typed is not None and typed.appends)
        elif isinstance(value, dict) and not tables and (direct or (bases and isinstance(value, _Rest))):
            yield from self._described(bases, hint, value, where)
        elif isinstance(value, dict) and tables:
            for name, each in value.items():
                here = where.inner(str(name))
                is_joined = each is None and ":" in str(name)
                yield from (
                    [self._unknown(here, "", [])] if is_joined else self._value(item_type(tables[0]), each, here)
                )
        elif isinstance(value, str) and direct:
            yield from self._named(bases, hint, value, where)
        else:
            yield mistake(where, typed or value, expected_at(where, hint, bases, value))

    def _list(self, hint: Any, values: list[Any], where: Where, appended: bool) -> Iterator[Mistake]:
        number = length(hint)
        if number is not None and number != len(values):
            yield mistake(where, values, in_words(hint))
            return
        for position, value in enumerate(values):
            item = get_args(hint)[position] if number is not None else item_type(hint)
            here = where.inner(str(position))
            here = replace(here, shown=where.shown) if appended else here
            self._forget(here.place)
            yield from self._value(item, value, here)
            self._name_last(where.place, here.place)

    def _name_last(self, place: Place, last: Place) -> None:
        """Options name the last entry of a list by the place of the list."""
        size = len(place)
        for kept in (self.classes, self.given):
            below = [one for one in kept if one[:size] == place]
            for one in below:
                if not "".join(one[size : size + 1]).isdigit():
                    del kept[one]
            for one in below:
                if one[: size + 1] == last:
                    kept[(*place, *one[size + 1 :])] = kept[one]  # type: ignore[assignment]  # of the same table

    def _described(self, bases: list[type], hint: Any, value: dict[Any, Any], where: Where) -> Iterator[Mistake]:
        """A table with a class and its arguments, or with arguments alone."""
        if "class_path" in value:
            found = list(self._named(bases, hint, value["class_path"], where.beside("class_path")))
            yield from found
            if found:
                return
        is_described = bool(set(value) & set(SPECIFICATION))
        if is_described and set(value) - set(SPECIFICATION):
            odd = next(str(name) for name in value if name not in SPECIFICATION)
            yield self._unknown(where.inner(odd), "", list(SPECIFICATION))
            return
        arguments = value.get("init_args") if is_described else value
        arguments = {} if arguments is None else arguments
        within = where.beside("init_args") if is_described else where
        if not isinstance(arguments, dict):
            yield mistake(within, arguments, "a table of arguments such as {name: value}")
            return
        cls = self._class_at(where.place, bases)
        if cls is not None:
            yield from self._arguments(cls, hint, arguments, within, () if is_described else SPECIFICATION)
        elif arguments and where.place == ("model",):
            yield Mistake("model", NO_METHOD)
        elif arguments:
            name = str(next(iter(arguments)))
            known = expected_class("", bases)
            yield Mistake(name, f"found {within.inner(name).name} without a class at {where.shown}; expected {known}")

    def _arguments(
        self, cls: type, hint: Any, arguments: dict[Any, Any], where: Where, others: tuple[str, ...]
    ) -> Iterator[Mistake]:
        hints, _ = signature_of(cls)
        names = list(hints)[1:] if _is_made_later(hint, cls) else list(hints)
        for key, value in arguments.items():
            name = str(key).removesuffix("+")
            here = where.inner(name, str(key))
            self.given.setdefault(where.place, set()).add(name)
            if name in names:
                yield from self._value(hints[name], value, here)
            else:
                is_last = (*where.place, "0") in self.classes
                owner = f"{cls.__name__}, the last of {'.'.join(where.place)}" if is_last else cls.__name__
                yield self._unknown(here, owner, names, others)

    def _named(self, bases: list[type], hint: Any, name: Any, where: Where) -> Iterator[Mistake]:
        """A class by its name or import path, or the file of a table that describes one."""
        if isinstance(name, Typed):
            name = name.text
        if isinstance(name, str) and os.path.isfile(name):
            path = os.path.realpath(name)
            if path in self.including:
                yield Mistake(where.place[-1], f"found {name}, which includes itself; expected files that end")
                return
            self.including.append(path)
            yield from self._in_file(hint, name, where)
            self.including.pop()
            return
        cls = class_of(name, bases) if isinstance(name, str) else None
        if cls is None:
            yield mistake(where, name, expected_at(where, hint, bases, name))
            return
        if self.classes.get(where.place) is not cls:
            self._forget(where.place, keep=LOADER_ARGUMENTS if issubclass(cls, ImageModule) else ())
        self.classes[where.place] = cls

    def _in_file(self, hint: Any, name: str, where: Where) -> Iterator[Mistake]:
        """The table of a file that stands where a class is expected."""
        try:
            table = read_yaml(name)
        except DataError as error:
            yield Mistake(where.place[-1], str(error))
            return
        inner = Where(where.place, where.shown, name)
        if isinstance(table, dict) and "class_path" in table:
            yield from self._value(hint, table, inner)
        elif isinstance(table, dict) and set(table) == {where.place[-1]}:
            yield from self._value(hint, table[where.place[-1]], inner)

    def _class_at(self, place: Place, bases: list[type]) -> type | None:
        """The class that tables name at a place; else that of the default."""
        if place not in self.classes:
            default = self._default(place)
            if default is None and is_dataclass(bases[0]) and not inspect.isabstract(bases[0]):
                default = bases[0]
            if default is not None:
                self.classes[place] = default
        return self.classes.get(place)

    def _default(self, place: Place) -> type | None:
        outer = self.classes.get(place[:-1])
        default = signature_of(outer)[1].get(place[-1]) if outer else None
        if outer and inspect.isfunction(default):
            described = _defaults(outer).get(place[-1])
            known = {class_path(cls): cls for cls in classes_for(object)}
            return known.get(described["class_path"]) if described and "class_path" in described else None
        return type(default) if is_dataclass(default) else None

    def _forget(self, place: Place, keep: Iterable[str] = ()) -> None:
        """Drop what earlier tables set within a place."""
        for kept in (self.classes, self.given):
            for one in [one for one in kept if one[: len(place)] == place]:
                del kept[one]
        if keep:
            self.given[place] = set(keep)

    def _unknown(self, where: Where, owner: str, names: list[str], others: tuple[str, ...] = ()) -> Mistake:
        name = where.place[-1]
        expected = expected_name(name, owner, names, others)
        return Mistake(name, f"found {where.name}, which is not known there; expected {expected}")


def _defaults(cls: type) -> Namespace:
    """The defaults of a class as the parser describes them: `lambda p: SGD(p, lr=1)` is a class with arguments."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    return parser.get_defaults()


def _leaf(where: Where, value: Any) -> Where:
    """The first place with a value in a table."""
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        where = where.inner(str(name))
    return where


def _items_of(typed: Typed) -> Any:
    """The value of an option as YAML has it; a list for one that is appended."""
    try:
        value = load_yaml(typed.text)
    except (yaml.YAMLError, UnicodeError):
        value = typed.text
    return [value] if typed.appends and not isinstance(value, list) else value


def _is_made_later(hint: Any, cls: type) -> bool:
    """Whether the first argument of a class is left to the method, as the parameters of an optimizer are."""
    return not any(inspect.isclass(part) and issubclass(cls, part) for part in branches(hint))
