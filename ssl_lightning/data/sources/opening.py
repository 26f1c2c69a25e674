"""The table of the images at a path, whatever holds them; the kind of source follows from the ending."""

import os
from functools import lru_cache
from pathlib import Path

from ssl_lightning.data.sources.byte_table import ByteTable, joined_tables
from ssl_lightning.data.sources.paths import divided, locate
from ssl_lightning.data.sources.selection import DEFAULT_SELECTION, Selection
from ssl_lightning.data.sources.tar import is_tar, tar_table
from ssl_lightning.errors import DataError

FORMATS = ".tar, .tar.xz, .tar.gz, .tar.bz2"
"""Endings of files with several images."""


def sources_at(path: str) -> list[str]:
    """The folder or files of a path, each with what it names inside of them; see `locate` and `divided`."""
    place, inside = divided(path)
    return [f"{file}:{inside}" if inside else str(file) for file in locate(place)]


def file_table(source: str, selection: Selection) -> ByteTable:
    """The images in one file.

    Args:
        source: One of `sources_at`, no folder.
        selection: Patterns of file names.

    Raises:
        DataError: If the file is of no kind that is read, or broken or unsafe.
    """
    if not is_tar(source):
        raise DataError(f"{source} is neither a folder nor a tar file ({FORMATS}): give one of these")
    return tar_table(Path(source), selection)


def is_folder(sources: list[str]) -> bool:
    """Whether the only source is a folder."""
    return os.path.isdir(sources[0])


Times = tuple[tuple[int, int], ...]
"""Time of change and size of each file."""


def times_of(sources: list[str]) -> Times:
    """What changes with the content of files."""
    found = [os.stat(divided(source)[0]) for source in sources]
    return tuple((status.st_mtime_ns, status.st_size) for status in found)


@lru_cache(maxsize=3)
def files_table(sources: tuple[str, ...], times: Times, selection: Selection = DEFAULT_SELECTION) -> ByteTable:
    """The images in several files, which are listed once while they do not change.

    Args:
        sources: Some of `sources_at`.
        times: Their `times_of`.
        selection: Patterns of file names.

    Raises:
        DataError: See `file_table`.
    """
    return joined_tables([file_table(source, selection) for source in sources])
