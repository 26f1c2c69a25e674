"""Errors by type, each with the exit code that a scheduler reads (sysexits where there is one)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def one_line(text: str) -> str:
    """Text for a terminal: one line, in which names and values of strangers move no cursor and ring no bell."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(text.split()))


def debugging() -> bool:
    """Whether the environment variable `SSL_LIGHTNING_DEBUG` requests the traceback of every error."""
    return os.environ.get("SSL_LIGHTNING_DEBUG", "") not in ("", "0")


class RunStoppedError(Exception):
    """A run that ended early, with one line for people and a code for machines."""

    exit_code = 1


class ParsingError(RunStoppedError):
    """A command line that cannot be parsed."""

    exit_code = 2


class UsageError(RunStoppedError, ValueError):
    """A mistake in what the user gave: options, settings, or files that do not go together."""

    exit_code = 64


class DataError(RunStoppedError, ValueError):
    """A file or dataset that is missing, damaged, or not what it should be."""

    exit_code = 65


class NonFiniteError(RunStoppedError):
    """The loss, a weight or a feature is NaN or infinite; no checkpoint holds it."""

    exit_code = 70


def diverged(found: str) -> NonFiniteError:
    """What is told of it, and what to do.

    Args:
        found: What is not finite, and where.
    """
    return NonFiniteError(
        f"found {found}; no checkpoint holds it: give the command again with a lower learning rate or with "
        "--trainer.precision 32-true, and, to go on from the last checkpoint if there is one, "
        "--resume.allow_config_change true"
    )


class CollapseError(RunStoppedError):
    """The doctor found a failure and was asked to stop; the last checkpoint is from before the diagnosis."""

    exit_code = 76


class DiskError(RunStoppedError):
    """Checkpoints could not be written several times in a row."""

    exit_code = 74


class LockedRunError(RunStoppedError):
    """Another process is at work in the run's folder."""

    exit_code = 75


class PreemptedError(RunStoppedError):
    """SIGTERM: a checkpoint was written at the step boundary."""

    exit_code = 143


class RequeueError(PreemptedError):
    """SIGUSR1 or SIGUSR2, by which schedulers announce the end of a job's time: the same, and to be started again."""

    exit_code = 85


class InterruptError(PreemptedError):
    """SIGINT (Ctrl-C): the same; started again by the user."""

    exit_code = 130


class HookError(BaseException):
    """A failure of this package in a function that the parser calls; its cause is the error.

    No `Exception`, since the parser reports each of those as a mistake of the user.
    """


@contextmanager
def called_by_parser(*expected: type[Exception]) -> Iterator[None]:
    """Body of a function that the parser calls.

    Args:
        expected: Errors that the function raises on purpose, beside those of this module.

    Raises:
        HookError: For any other exception.
    """
    try:
        yield
    except (RunStoppedError, *expected):
        raise
    except Exception as error:
        raise HookError from error
