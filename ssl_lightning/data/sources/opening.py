"""The table of the images at a path, whatever holds them; the kind of source follows from the ending."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ssl_lightning.data.sources import arrays, lists
from ssl_lightning.data.sources.byte_table import ByteTable, joined_tables
from ssl_lightning.data.sources.container import forget_containers
from ssl_lightning.data.sources.folder import folder_table
from ssl_lightning.data.sources.paths import divided, is_address, locate
from ssl_lightning.data.sources.remote import (
    addresses_at,
    folder_listing,
    is_remote_tar,
    remote_copy_table,
    remote_folder_table,
    remote_tar_table,
    version_of,
)
from ssl_lightning.data.sources.selection import DEFAULT_SELECTION, Selection
from ssl_lightning.data.sources.sidecars import labels_of_sidecars
from ssl_lightning.data.sources.splits import split_files
from ssl_lightning.data.sources.tar import is_tar, tar_table
from ssl_lightning.errors import DataError


def _parquet_table(source: str, selection: Selection, label: str | None) -> ByteTable:
    from ssl_lightning.data.sources.parquet import parquet_table  # it imports pyarrow

    return parquet_table(source, selection, label)


def _arrow_table(source: str, selection: Selection, label: str | None) -> ByteTable:
    from ssl_lightning.data.sources.arrow import arrow_table  # it imports pyarrow

    return arrow_table(source, selection, label)


_KINDS: dict[str, Callable[[str, Selection, str | None], ByteTable]] = {
    ".parquet": _parquet_table,
    ".arrow": _arrow_table,
    ".feather": _arrow_table,
    **dict.fromkeys(lists.ENDINGS, lists.list_table),
    **dict.fromkeys(arrays.ENDINGS, arrays.array_table),
}
"""What lists the images of a file, by its ending; beside tar files."""
FORMATS = f"a tar file (.tar, .tar.xz, .tar.gz, .tar.bz2), a table, list or array ({', '.join(_KINDS)})"
"""Files with several images, in words."""


def sources_at(path: str) -> list[str]:
    """The folder or files of a path, each with what it names inside of them; see `locate` and `divided`."""
    if is_address(path):
        return addresses_at(path)
    place, inside = divided(path)
    return [f"{file}:{inside}" if inside else str(file) for file in locate(place)]


def file_table(source: str, selection: Selection = DEFAULT_SELECTION, label: str | None = None) -> ByteTable:
    """The images in one file.

    Args:
        source: One of `sources_at`, no folder.
        selection: Patterns of file names.
        label: Column of the labels; None for no labels.

    Raises:
        DataError: If the file is of no kind that is read, or broken or unsafe.
    """
    path = divided(source)[0]
    if is_address(source):
        return _remote_table(source, selection, label)
    if is_tar(path):
        table = tar_table(Path(path), selection)
        if label is None or not len(table):
            return table
        labels, classes = labels_of_sidecars(table, label)
        return replace(table, labels=labels, classes=classes)
    kind = _KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise DataError(f"{source} is neither a folder nor {FORMATS}: give one of these")
    return kind(source, selection, label)


def holds_images(name: str) -> bool:
    """Whether a file of this name may hold images itself: a tar file, table or array, no list."""
    return is_tar(name) or (Path(name).suffix.lower() in _KINDS and not name.lower().endswith(lists.ENDINGS))


def _remote_table(address: str, selection: Selection, label: str | None) -> ByteTable:
    if is_remote_tar(address) and label is None:
        return remote_tar_table(address, selection)
    if divided(address)[0].lower().endswith(lists.ENDINGS):
        raise DataError(f"{address} is a list; expected a tar file, table or array: copy the list and its files first")
    return remote_copy_table(address, lambda copy: file_table(copy, selection, label))


def is_folder(sources: list[str]) -> bool:
    """Whether the only source is a folder."""
    if is_address(sources[0]):
        path = divided(sources[0])[0]
        return not is_tar(path) and Path(path).suffix.lower() not in _KINDS
    return os.path.isdir(sources[0])


Times = tuple[tuple[int, int], ...]
"""Time of change and size of each file."""


def times_of(sources: list[str]) -> Times:
    """What changes with the content of files."""
    return tuple(version_of(source) if is_address(source) else _status(source) for source in sources)


def _status(source: str) -> tuple[int, int]:
    status = os.stat(divided(source)[0])
    return status.st_mtime_ns, status.st_size


def listed_folder(root: str, within: str, selection: Selection) -> tuple[ByteTable, str]:
    """The images in a folder, local or remote; see `folder_table`."""
    if is_address(root):
        return remote_folder_table(root, within, selection)
    return folder_table(Path(root) / within, within, selection)


def folders_in(root: str) -> list[str]:
    """The names of the folders in a folder.

    Raises:
        DataError: If it cannot be read.
    """
    if is_address(root):
        return sorted({name.split("/", 1)[0] for name in folder_listing(root.rstrip("/")) if "/" in name})
    try:
        return [entry.name for entry in os.scandir(root) if entry.is_dir()]
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}): check the folder and its rights") from error


@lru_cache(maxsize=3)
def files_table(
    sources: tuple[str, ...], times: Times, selection: Selection = DEFAULT_SELECTION, label: str | None = None
) -> ByteTable:
    """The images in several files, which are listed once while they do not change.

    Args:
        sources: Some of `sources_at`.
        times: Their `times_of`.
        selection: Patterns of file names.
        label: Column of the labels; None for no labels.

    Raises:
        DataError: See `file_table`.
    """
    forget_containers()
    return joined_tables([file_table(source, selection, label) for source in sources])


def splits_at(sources: list[str]) -> dict[str, list[str]]:
    """The files of each split, where splits are files and not folders of images; else nothing."""
    if is_folder(sources):
        names = folder_listing(sources[0].rstrip("/")) if is_address(sources[0]) else None
        return split_files(sources[0], names)
    return arrays.array_splits(sources[0]) if len(sources) == 1 else {}


def shards_of_split(sources: list[str], split: str | None) -> list[str] | None:
    """The files of a split, or without a split all files that have their labels in them; None for other sources.

    Raises:
        DataError: If other splits are there but not this one.
    """
    if split is None:
        return None if is_folder(sources) or is_tar(divided(sources[0])[0]) else sources
    found = splits_at(sources)
    if found and split not in found and not (is_folder(sources) and split in folders_in(sources[0])):
        raise DataError(f"{sources[0]} has no split {split!r}, only {', '.join(found)}: give one of these")
    if not found and not is_folder(sources) and not is_tar(divided(sources[0])[0]):
        raise DataError(f"{sources[0]} has no splits, but split={split!r} is requested: give --data.split null")
    return found.get(split)
