"""Folders: the table of their images, with the files that are skipped and the reasons; each file is read as a whole."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.fingerprint import digest
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.container import LARGEST_SIDECAR, Container, sidecar_names
from ssl_lightning.data.sources.found import FoundFiles
from ssl_lightning.data.sources.selection import HEAD, Selection, is_system_name
from ssl_lightning.errors import DataError

_FOLDER = "folder that cannot be read"


class Folder(Container):
    """A folder with one file for each image."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the content of a file."""
        with open(os.path.join(self.path, name), "rb") as stream:
            return stream.read()

    def sidecar(self, name: str, ending: str) -> bytes | None:
        """Return the content of a file beside an image, up to 1 MiB."""
        for path in (os.path.join(self.path, beside) for beside in sidecar_names(name, ending)):
            if os.path.isfile(path):
                with open(path, "rb") as stream:
                    return stream.read(LARGEST_SIDECAR)
        return None


def folder_table(root: Path, within: str, selection: Selection) -> tuple[ByteTable, str]:
    """The images in a folder, and a digest of their modification times.

    Args:
        root: The folder.
        within: Its path within the source, with a slash at the end; patterns apply to the path within the source.
        selection: Patterns of file names.

    Raises:
        DataError: If the folder cannot be read.
    """
    files, status = FoundFiles(selection), {}
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


def _head_of(path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(path, "rb") as stream:
            return stream.read(HEAD)

    return read


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
