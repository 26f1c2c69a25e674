"""The parser of every subcommand: configurations by name, local files alone, errors in one line."""

import logging
import os
import re
import sys
import traceback
from typing import ClassVar, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from ssl_lightning.arguments import CONFIG, Option, configs_in, options_in
from ssl_lightning.cli.config_names import find_config
from ssl_lightning.cli.explanations import Call, explain
from ssl_lightning.cli.precedence import in_order
from ssl_lightning.errors import ParsingError, UsageError, called_by_parser, debugging, one_line
from ssl_lightning.processes import rank

log = logging.getLogger(__name__)


class OneLineParser(LightningArgumentParser):
    """A parser with one-line errors: what was found, what was expected."""

    called: ClassVar[Call] = Call()
    """What the parser is to read, for the messages of errors."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]  # as jsonargparse
        """Report a mistake in one line and leave with exit code 2; see `SSL_LIGHTNING_DEBUG`."""
        if debugging() and ex is not None:
            traceback.print_exception(ex)
        with called_by_parser():
            line = explain(str(message), self.called, self._names())
        reject(line)

    def _names(self) -> list[str]:
        """Options of this parser."""
        return [option.removeprefix("--") for action in self._actions for option in action.option_strings]


def reject(line: str) -> NoReturn:
    """Leave with the exit code of a command line that cannot be parsed."""
    sys.stderr.write(f"ssl-lightning: error: {one_line(line)}\n")
    sys.exit(ParsingError.exit_code)  # past the parser, which reports every Exception once more


def prepare_arguments(arguments: list[str]) -> list[str]:
    """The command line for the parser: names of configurations are paths, every file is a local text, in `in_order`.

    Args:
        arguments: As typed.

    Raises:
        UsageError: For an address, or a configuration that is not there.
        ParsingError: For a configuration that is no text.
    """
    options = options_in(arguments)
    _reject_addresses(options)
    resolved = [word for option in options for word in _resolved(option)]
    for path in configs_in(resolved):
        if os.path.isfile(path) and not _is_text(path):
            raise ParsingError(
                f"found {path}, which is no YAML file (text in UTF-8); expected a configuration, such as those in "
                "configs/: a checkpoint goes to --ckpt_path, or to --run.start_from for its weights alone"
            )
    return in_order(resolved)


def _reject_addresses(options: list[Option]) -> None:
    for option in options:
        value = option.value or ""
        is_config = option.name == CONFIG
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://" if is_config else "file:", value):
            raise UsageError(f"found the address {value}; expected the path of a local file")


def _resolved(option: Option) -> tuple[str, ...]:
    """The words of an option for the parser."""
    if option.words == ("--print_config",):  # prints what differs from the defaults; `--print_config=` everything
        return ("--print_config=skip_default",)
    if option.name != CONFIG:
        return option.for_parser
    if option.value is None:
        raise UsageError(f"found {option.words[0]} without a file; expected a configuration, such as --config swav")
    return (f"--{CONFIG}={_resolve_config(option.value)}",)


def _resolve_config(value: str) -> str:
    """The path of a configuration; YAML text and standard input, which the parser reads too, stay as they are."""
    if value == "-" or (re.search(r"[:{\n]", value) and not os.path.exists(value)):
        return value
    path = str(find_config(value))
    if path != value and rank() == 0:
        log.info(f"--config {value}: {path}")
    return path


def _is_text(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            for _ in file:  # a checkpoint is large, and not text from its first lines on
                pass
    except UnicodeDecodeError:
        return False
    except OSError as error:
        raise UsageError(f"found {path}, which cannot be read ({error.strerror}); expected a configuration") from error
    return True
