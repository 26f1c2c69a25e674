"""Tables of the images in folders and tar files, with the files that are skipped and the reasons."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.data.byte_table import ByteTable
from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.fingerprint import digest
from ssl_lightning.data.selection import HEAD, Selection, is_system_name
from ssl_lightning.data.tars import TarIndex, index_tar
from ssl_lightning.errors import DataError

_TARS = re.compile(r"\.(tar(\.(xz|gz|bz2))?|tgz|txz|tbz2?)\Z", re.IGNORECASE)
_FOLDER = "folder that cannot be read"


def is_tar(name: str) -> bool:
    """Whether a file name has the ending of a tar file."""
    return _TARS.search(name) is not None


def tar_table(path: Path, selection: Selection) -> ByteTable:
    """The images in a tar file.

    Raises:
        DataError: If it is no tar file, or broken or unsafe.
    """
    if not is_tar(path.name):
        raise DataError(
            f"{path} is neither a folder nor a tar file (.tar, .tar.xz, .tar.gz, .tar.bz2): give one of these"
        )
    index = index_tar(path)
    files = _Found(selection)
    try:
        for row, (name, read) in enumerate(zip(index.names, _heads(path, index), strict=True)):
            files.add(name, row, read)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its disk") from error
    order = files.order()
    rows = np.array([row for _, row in order], dtype=np.int64)
    names, zeros = PackedNames([name for name, _ in order]), np.zeros(len(rows), dtype=np.int32)
    return ByteTable([str(path)], zeros, names, index.offsets[rows], index.sizes[rows], index.unpacked, files.skipped)


def folder_table(root: Path, within: str, selection: Selection) -> tuple[ByteTable, str]:
    """The images in a folder, and a digest of their modification times.

    Args:
        root: The folder.
        within: Its path within the source, with a slash at the end; patterns apply to the path within the source.
        selection: Patterns of file names.

    Raises:
        DataError: If the folder cannot be read.
    """
    files, status = _Found(selection), {}
    try:
        for name, path, size, time in _walk(root, "", (), files.skipped) if root.is_dir() else ():
            status[name] = (size, time)
            files.add(name, name, _head_of(path), within)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise DataError(f"{root} cannot be read ({reason}): check the folder and its rights") from error
    order = [name for name, _ in files.order()]
    sizes = np.array([status[name][0] for name in order], dtype=np.int64)
    times = digest(np.array([status[name][1] for name in order], dtype=np.int64).tobytes())
    zeros, none = np.zeros(len(order), dtype=np.int32), np.full(len(order), -1)
    return ByteTable([str(root)], zeros, PackedNames(order), none, sizes, skipped=files.skipped), times


def joined_tables(tables: list[ByteTable]) -> ByteTable:
    """One table of several shards."""
    if any(table.unpacked is not None for table in tables):
        raise DataError(f"{tables[0].containers[0]} and the others are compressed: unpack shards to plain tar files")
    return ByteTable(
        [table.containers[0] for table in tables],
        np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables]),
        PackedNames([name for table in tables for name in table.names]),
        np.concatenate([table.offsets for table in tables]),
        np.concatenate([table.sizes for table in tables]),
        skipped=_merged([table.skipped for table in tables]),
    )


def _merged(skipped: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for each in skipped:
        for reason, names in each.items():
            merged.setdefault(reason, []).extend(names)
    return merged


@dataclass(eq=False)
class _Found:
    """Images by name, and skipped files by reason."""

    selection: Selection
    images: list[tuple[str, Any]] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, key: Any, head: Callable[[], bytes], within: str = "") -> None:
        try:
            reason = self.selection.skipped_because(within + name, head)
        except OSError:
            reason = "that cannot be opened"
        if reason:
            self.skipped.setdefault(reason, []).append(name)
        else:
            self.images.append((name, key))

    def order(self) -> list[tuple[str, Any]]:
        """Sorted by the bytes of names."""
        return sorted(self.images, key=lambda image: os.fsencode(image[0]))


def _head_of(path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(path, "rb") as stream:
            return stream.read(HEAD)

    return read


def _heads(path: Path, index: TarIndex) -> Iterator[Callable[[], bytes]]:
    """For each member a function that reads its first bytes."""

    def read(row: int) -> bytes:
        at, size = int(index.offsets[row]), min(HEAD, int(index.sizes[row]))
        if index.unpacked is not None:
            return index.unpacked[at : at + size].tobytes()
        with path.open("rb", buffering=0) as file:
            file.seek(at)
            return file.read(size)

    return (partial(read, row) for row in range(len(index.names)))


def _walk(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...], skipped: dict[str, list[str]]
) -> Iterator[tuple[str, str, int, int]]:
    """Names, paths, sizes and times of all regular files; links are followed, except to a folder that contains them.

    Entries that are neither a file nor a readable folder are added to `skipped`. A top folder that cannot be read is an
    error.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError:
        if not above:
            raise
        if not is_system_name(folder.name):
            skipped.setdefault(_FOLDER, []).append(prefix)
        return
    for entry in entries:
        name = prefix + entry.name
        try:
            if entry.is_dir():
                yield from _walk(folder / entry.name, f"{name}/", (*above, here), skipped)
            elif entry.is_file():
                status = entry.stat()
                yield name, entry.path, status.st_size, status.st_mtime_ns
            else:
                reason = "dangling link" if entry.is_symlink() else "pipe or device"
                skipped.setdefault(reason, []).append(name)
        except OSError:
            skipped.setdefault("dangling link" if entry.is_symlink() else _FOLDER, []).append(name)
