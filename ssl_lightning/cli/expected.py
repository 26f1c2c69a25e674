"""The line of a mistake: what was found at a place, what the place takes."""

import inspect
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ssl_lightning.checkpoints.places import classes_in
from ssl_lightning.cli.suggestions import classes_for, expected_class, expected_precision
from ssl_lightning.cli.types_in_words import as_yaml, branches, in_words, is_list, is_table, shortened

Place = tuple[str, ...]
"""Names from the top, without `init_args`."""


@dataclass(frozen=True)
class Mistake:
    """A value or a name that the parser rejects.

    Attributes:
        name: The last name of its place.
        line: What was found and what was expected.
    """

    name: str
    line: str


@dataclass(frozen=True)
class Typed:
    """The value of an option, as typed."""

    text: str
    appends: bool = False


@dataclass(frozen=True)
class Where:
    """A place in a table.

    Attributes:
        place: In all tables.
        shown: As this table has it.
        file: Empty for the command line.
    """

    place: Place = ()
    shown: str = ""
    file: str = ""

    def inner(self, name: str, shown: str | None = None) -> "Where":
        """A place in this one."""
        here = f"{self.shown}.{shown or name}" if self.shown else shown or name
        return Where((*self.place, name), here, self.file)

    def beside(self, name: str) -> "Where":
        """The same place by another name."""
        return Where(self.place, f"{self.shown}.{name}", self.file)

    @property
    def of_file(self) -> str:
        """For a message."""
        return f" in {self.file}" if self.file else ""

    @property
    def name(self) -> str:
        """For a message about the name itself."""
        return f"{self.shown}{self.of_file}" if self.file else f"--{self.shown}"


def expected_value(name: str, hint: Any) -> str:
    """What an option takes, in words.

    Args:
        name: Of the option.
        hint: Its declared type.
    """
    return expected_at(Where(tuple(name.split("."))), hint, bases_of(hint), None)


def bases_of(hint: Any) -> list[type]:
    """Classes that a place takes, also as entries of a list or table."""
    return [base for base, _ in classes_in(hint) if classes_for(base) or is_dataclass(base)]


def expected_at(where: Where, hint: Any, bases: list[type], value: Any) -> str:
    """What a place takes, in words.

    Args:
        where: The place.
        hint: Its declared type.
        bases: Classes that it takes.
        value: As given: names like it are named.
    """
    if where.place == ("trainer", "precision"):
        return expected_precision(value)
    parts = branches(hint)
    of_classes = [part for part in parts if any(base in bases for base, _ in classes_in(part))]
    direct = [part for part in of_classes if not is_list(part) and not is_table(part)]
    found: list[str] = []
    if bases:
        entry = _entry(bases[0])
        if not direct:
            found.append(
                f"a table such as {{name: {entry}}}" if is_table(of_classes[0]) else f"a list such as [{entry}]"
            )
        elif _is_plain_dataclass(bases[0]):
            found.append(f"a table such as {entry}")
        else:
            found.append(expected_class(value if isinstance(value, str) else "", bases))
            found += ["a list of such"] * any(is_list(part) for part in of_classes)
    found.append(in_words(*(part for part in parts if part not in of_classes), value=value))
    return ", or ".join(one for one in found if one) or "another value"


def _is_plain_dataclass(base: type) -> bool:
    """Whether a class is a group of options, which is given by its fields alone."""
    return is_dataclass(base) and not inspect.isabstract(base) and bool(fields(base))


def _entry(base: type) -> str:
    """An entry of a list or table, as an example."""
    if _is_plain_dataclass(base):
        return f"{{{fields(base)[0].name}: ...}}"
    return f"{{class_path: {next((cls.__name__ for cls in classes_for(base)), 'NAME')}}}"


def mistake(where: Where, value: Any, expected: str) -> Mistake:
    """The mistake of a value.

    Args:
        where: Its place.
        value: As given.
        expected: What the place takes, in words.
    """
    text = value.text if isinstance(value, Typed) else as_yaml(value)
    form = _as_list(text, expected)
    return Mistake(where.place[-1], f"found {where.shown}={shortened(text)}{where.of_file}; expected {expected}{form}")


def _as_list(text: str, expected: str) -> str:
    """The form of a list, for one value or several that are separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    is_plain = all(part and not set(part) & set("[]{}:#&'\" \n") for part in parts)
    if not expected.startswith("a list such as") or not is_plain:
        return ""
    return f": [{', '.join(map(as_yaml, parts))}]" if any(part[0] in "*!%@`|>?" for part in parts) else f": [{text}]"
