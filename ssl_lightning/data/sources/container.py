"""Container: what holds the bytes of images, such as a folder or a tar file, opened once per process by its path."""

import importlib
import os
import re
from abc import ABC, abstractmethod
from functools import lru_cache

_FOLDER = "folder.Folder"
_BY_ENDING = {
    r"\.(tar(\.(xz|gz|bz2))?|tgz|txz|tbz2?)": "tar.TarFile",
    r"\.parquet(:.+)?": "parquet.ParquetFile",
    r"\.(npy|npz|h5|hdf5)(:.+)?": "arrays.ArrayFile",
    r"\.(arrow|feather)(:.+)?": "arrow.ArrowFile",
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

    def sidecar(self, name: str, ending: str) -> bytes | None:
        """Return the content of the file that has the name of an image and another ending; None if there is none.

        Args:
            name: Of the image.
            ending: Without a dot, such as `json`.

        Raises:
            OSError: If it cannot be read.
        """
        return None


LARGEST_SIDECAR = 1 << 20
"""Bytes of a sidecar that are read."""


def sidecar_names(name: str, ending: str) -> list[str]:
    """Names of a sidecar: with the last ending of the image replaced or, as in WebDataset, all that follows a dot.

    Args:
        name: Of the image.
        ending: Without a dot.
    """
    folder, slash, file = name.rpartition("/")
    stems = dict.fromkeys((file.rsplit(".", 1)[0], file[:1] + file[1:].split(".", 1)[0]))
    return [f"{folder}{slash}{stem}.{ending}" for stem in stems]


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
    if "://" in path:
        kind = next((kind for ending, kind in _KINDS if ending.search(path)), "")
        return "remote.RemoteTar" if path.lower().endswith(".tar") else f"remote.Remote{'Copy' if kind else 'Folder'}"
    if os.path.isdir(path):
        return _FOLDER
    return next((kind for ending, kind in _KINDS if ending.search(path)), _FOLDER)
