"""Functions that engines carry out in other processes, which import this module."""

import errno
import os
import signal
from pathlib import Path

from ssl_lightning.errors import DataError


def squared(number, count):
    """The square of a number, which is counted as a file of so many bytes."""
    count(1, number)
    return number * number


def odd_is_damaged(number, count):
    """A number; odd ones have damaged data."""
    if number % 2:
        raise DataError(f"found {number}, which is odd")
    return number


def disk_is_full(number, count):
    """The error of a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"part-{number}")


def noted(task, count):
    """Note a number in a file; the worker of number 3 dies at its first attempt."""
    path, number = task
    with Path(path).open("a") as file:
        file.write(f"{number}\n")
    if number == 3 and Path(path).read_text().split().count("3") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def dies(number, count):
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def folder_and_variable(name, count):
    """Folder of the process, and an environment variable."""
    return os.getcwd(), os.environ.get(name)
