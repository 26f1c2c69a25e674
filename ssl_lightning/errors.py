"""Errors by type, each with its exit code (from sysexits where there is one)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def one_line(text: str) -> str:
    """Escape text for the terminal: one line without control characters, whatever names and values it contains."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(text.split()))


def debugging() -> bool:
    """Whether the environment variable `SSL_LIGHTNING_DEBUG` requests the traceback of every error."""
    return os.environ.get("SSL_LIGHTNING_DEBUG", "") not in ("", "0")


class RunStoppedError(Exception):
    """A run that ended early, with a one-line message and an exit code."""

    exit_code = 1


class ParsingError(RunStoppedError):
    """A command line that cannot be parsed."""

    exit_code = 2


class UsageError(RunStoppedError, ValueError):
    """A mistake in options or settings, or in the combination of files."""

    exit_code = 64


class DataError(RunStoppedError, ValueError):
    """A file or dataset that is missing, damaged or of the wrong kind."""

    exit_code = 65


class NonFiniteError(RunStoppedError):
    """The loss, a weight or a feature is NaN or infinite; no checkpoint contains it."""

    exit_code = 70


def diverged(found: str) -> NonFiniteError:
    """The error for a value that is not finite, with a suggestion.

    Args:
        found: What is not finite, and where.
    """
    return NonFiniteError(
        f"found {found}; no checkpoint holds it: give the command again with a lower learning rate or with "
        "--trainer.precision 32-true, and, to resume from the last checkpoint if there is one, "
        "--resume.allow_config_change true"
    )


class CollapseError(RunStoppedError):
    """The training diagnostics found a failure and `doctor.on_collapse` is "stop"; the last checkpoint is older."""

    exit_code = 76


class DiskError(RunStoppedError):
    """Checkpoints could not be written several times in a row."""

    exit_code = 74


class LockedRunError(RunStoppedError):
    """Another process is writing into the folder of the run."""

    exit_code = 75


class PreemptedError(RunStoppedError):
    """SIGTERM: a checkpoint was written after the step."""

    exit_code = 143


class RequeueError(PreemptedError):
    """SIGUSR1 or SIGUSR2, sent before the end of a job's time: a checkpoint was written, the job is to be requeued."""

    exit_code = 85


class InterruptError(PreemptedError):
    """SIGINT (Ctrl-C): a checkpoint was written; the user restarts the command."""

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
