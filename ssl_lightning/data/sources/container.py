"""Container: what holds the bytes of images, such as a folder or a tar file, opened once per process by its path."""

import importlib
import os
import re
from abc import ABC, abstractmethod
from functools import lru_cache

_FOLDER = "folder.Folder"
_BY_ENDING = {
    r"\.(tar(\.(xz|gz|bz2))?|tgz|txz|tbz2?)": "tar.TarFile",
}
"""Modules and classes by the ending of the path. They are imported on first use: each process opens few kinds."""
_KINDS = [(re.compile(rf"{ending}\Z", re.IGNORECASE), kind) for ending, kind in _BY_ENDING.items()]


class Container(ABC):
    """Bytes of images. Positions are given per read, so that threads can share it; a process opens its own.

    Args:
        path: Its path in `ByteTable.containers`.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes of one image.

        Args:
            name: In `ByteTable.names`.
            offset: In `ByteTable.offsets`: a byte, a row, or -1.
            size: In `ByteTable.sizes`.

        Raises:
            OSError: If they are missing or cannot be read.
        """


def open_container(path: str) -> Container:
    """The container at a path; its kind follows from the ending, and folders have none that counts.

    Raises:
        OSError: If it is missing or cannot be read.
    """
    return _opened(path, os.getpid())


def forget_containers() -> None:
    """Open containers again: a file that was replaced under its name is still read where it is open."""
    _opened.cache_clear()


@lru_cache(maxsize=256)
def _opened(path: str, process: int) -> Container:
    """One object for each process: handles of libraries do not survive a fork."""
    module, name = _kind(path).split(".")
    return getattr(importlib.import_module(f"{__package__}.{module}"), name)(path)


def _kind(path: str) -> str:
    if os.path.isdir(path):
        return _FOLDER
    return next((kind for ending, kind in _KINDS if ending.search(path)), _FOLDER)
