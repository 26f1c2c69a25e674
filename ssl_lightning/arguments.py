"""A command line as options with their values, and words that stand alone.

Every place that looks at a command line does so by `options_in`. It divides the words as the parser does, but does not
know which options there are.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

CONFIG = "config"
END = "--"
"""After it, all words stand alone."""
_CONFIG_IN_SHORT = re.compile(r"-c(?:=?(.+))?", re.DOTALL)
_NUMBER = re.compile(r"-(\.?\d|\.?inf)", re.IGNORECASE)
_NUMBER_OF_THE_PARSER = re.compile(r"-\d+|-\d*\.\d+")


@dataclass(frozen=True)
class Option:
    """An option, or a word that stands alone.

    Attributes:
        name: Without dashes; empty for a word that stands alone.
        value: As typed; None without one.
        words: As typed.
    """

    name: str
    value: str | None
    words: tuple[str, ...]

    @property
    def for_parser(self) -> tuple[str, ...]:
        """Words that the parser takes for the same, since it takes a value such as -1e-3 for an option."""
        if self.value is None or len(self.words) == 1 or not _is_taken_for_option(self.value):
            return self.words
        return ("=".join(self.words),)


def options_in(arguments: Iterable[str]) -> list[Option]:
    """All words of a command line in their order, each with the option that it belongs to.

    A value is the text after the first `=`, or the next word. A negative number is a value, and so is a dash alone.

    Args:
        arguments: Of the command line, with or without the subcommand, which stands alone.
    """
    found: list[Option] = []
    words = list(arguments)
    while words:
        if words[0] == END:
            return [*found, Option("", None, (END,)), *(Option("", word, (word,)) for word in words[1:])]
        found.append(_option(words[0], words[1] if len(words) > 1 else None))
        words = words[len(found[-1].words) :]
    return found


def leading(options: Iterable[Option]) -> list[str]:
    """Words that stand alone before the first option."""
    first = takewhile(lambda option: not option.name, options)
    return [option.value for option in first if option.value is not None]


def values_in(arguments: Iterable[str]) -> set[str]:
    """Every value of an option and every word that stands alone, as typed."""
    return {option.value for option in options_in(arguments) if option.value is not None}


def configs_in(arguments: Iterable[str]) -> list[str]:
    """Values of `--config` in their order; each is a file, a name, or YAML text."""
    return [option.value for option in options_in(arguments) if option.name == CONFIG and option.value is not None]


def _option(word: str, following: str | None) -> Option:
    """The option that begins with a word, or the word alone."""
    if not _is_option(word):
        return Option("", word, (word,))
    short = _CONFIG_IN_SHORT.fullmatch(word)
    name, has_value, value = (CONFIG, short[1], short[1]) if short else word.lstrip("-").partition("=")
    if has_value:
        return Option(name, value, (word,))
    if following is None or _is_option(following):
        return Option(name, None, (word,))
    return Option(name, following, (word, following))


def _is_option(word: str) -> bool:
    """Whether a word is the name of an option, perhaps with a value; YAML text such as `- 1` is none."""
    return word.startswith("--") or (_is_dashed(word) and _NUMBER.match(word) is None)


def _is_taken_for_option(value: str) -> bool:
    return _is_dashed(value) and _NUMBER_OF_THE_PARSER.fullmatch(value) is None


def _is_dashed(word: str) -> bool:
    return word.startswith("-") and word != "-" and " " not in word.partition("=")[0]
