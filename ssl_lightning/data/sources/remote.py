"""Remote sources: the tables of tar files, other files and folders at an address, and their containers."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.fingerprint import digest
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.container import LARGEST_SIDECAR, Container, open_container, sidecar_names
from ssl_lightning.data.sources.found import FoundFiles
from ssl_lightning.data.sources.paths import divided, expand_braces
from ssl_lightning.data.sources.selection import HEAD, Selection
from ssl_lightning.data.sources.store import (
    RemoteFile,
    RemoteInfo,
    check_address,
    described_error,
    info,
    listed_files,
    matching,
)
from ssl_lightning.data.sources.tar import places_in, table_of_index
from ssl_lightning.data.sources.tar_index import index_members
from ssl_lightning.errors import DataError

_WHOLE_TAR = ".tar"
_PATTERN = frozenset("*?[")


class RemoteTar(Container):
    """A remote tar file, read by ranges."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.file = RemoteFile(path)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes of a member."""
        return self.file.read(offset, size)

    def sidecar(self, name: str, ending: str) -> bytes | None:
        """Return the content of a member beside an image, up to 1 MiB; the headers are read on the first call."""
        for beside in sidecar_names(name, ending):
            if place := self._members.get(beside):
                return self.file.read(place[0], min(place[1], LARGEST_SIDECAR))
        return None

    @cached_property
    def _members(self) -> dict[str, tuple[int, int]]:
        """Offset and size of each member."""
        try:
            return places_in(index_members(self.path, self.file.read, self.file.info.size))
        except DataError as error:
            raise OSError(str(error)) from error


class RemoteCopy(Container):
    """Another remote file, which is copied to the cache as a whole."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.copy = local_copy(path)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes of an image."""
        return open_container(self.copy).read(name, offset, size)


class RemoteFolder(Container):
    """A remote folder with one file for each image."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the content of a file."""
        return RemoteFile(f"{self.path}/{name}", _listed.get(self.path, {}).get(name)).read(0, 1 << 62)


_listed: dict[str, dict[str, RemoteInfo]] = {}
"""Files of the folders that this process, or the one that it was forked from, has listed."""


def addresses_at(address: str) -> list[str]:
    """The addresses that braces and patterns stand for, sorted by their bytes.

    Raises:
        DataError: If a pattern matches nothing, or the store cannot be read.
    """
    check_address(address)
    path, inside = divided(address)
    found: list[str] = []
    for each in expand_braces(path):
        matches = [each]
        if _PATTERN & set(each) and not each.startswith("http"):
            matches = _reported(each, lambda each=each: matching(each))
            if not matches:
                raise DataError(f"{each} not found: check the bucket and the pattern")
        found += matches
    return [f"{each}:{inside}" if inside else each for each in sorted(found, key=os.fsencode)]


def version_of(address: str) -> tuple[int, int]:
    """Numbers that change with the content of a remote file.

    Raises:
        DataError: If it is missing or cannot be reached.
    """
    found = _reported(address, lambda: info(divided(address)[0]))
    return int(digest(found.version.encode())[:15], 16), found.size


def remote_tar_table(address: str, selection: Selection) -> ByteTable:
    """The images in a remote tar file, of which the headers are read and, where ranges are small, the rest.

    Raises:
        DataError: If it cannot be read, or is broken or unsafe.
    """
    file = _reported(address, lambda: RemoteFile(address))
    index = _reported(address, lambda: index_members(address, file.read, file.info.size))

    def head(row: int) -> bytes:
        return file.read(int(index.offsets[row]), min(HEAD, int(index.sizes[row])))

    table = _reported(address, lambda: table_of_index(address, index, head, selection))
    return replace(table, versions=[f"{file.info.version} {file.info.size}"])


def remote_copy_table(address: str, listing: Callable[[str], ByteTable]) -> ByteTable:
    """The images in another remote file, from its copy.

    Args:
        address: Of the file.
        listing: Lists the copy.

    Raises:
        DataError: See `remote_tar_table`.
    """
    file = _reported(address, lambda: RemoteFile(divided(address)[0]))
    copy = _reported(address, lambda: local_copy(address))
    try:
        table = listing(copy)
    except DataError as error:
        raise DataError(str(error).replace(divided(copy)[0], divided(address)[0])) from error
    if len(table.containers) > 1:
        raise DataError(f"{address} refers to files beside it, which are not read from a store: copy the folder first")
    return replace(table, containers=[address], versions=[f"{file.info.version} {file.info.size}"])


def remote_folder_table(root: str, within: str, selection: Selection) -> tuple[ByteTable, str]:
    """The images in a remote folder, and a digest of the versions of all files; see `folder.folder_table`."""
    root = f"{root.rstrip('/')}/{within}".rstrip("/")
    found = folder_listing(root)
    files = FoundFiles(selection)
    for name in sorted(found, key=os.fsencode):
        files.add(name, name, lambda name=name: RemoteFile(f"{root}/{name}", found[name]).read(0, HEAD), within)
    order = [name for name, _ in files.order()]
    sizes = np.array([found[name].size for name in order], dtype=np.int64)
    version = digest(*(f"{name}\n{found[name].version}".encode("utf-8", "surrogateescape") for name in order))
    zeros, none = np.zeros(len(order), dtype=np.int32), np.full(len(order), -1)
    table = ByteTable(
        [root], zeros, PackedNames(order), none, sizes, skipped=files.skipped, versions=[version] if order else []
    )
    return table, version


def folder_listing(root: str) -> dict[str, RemoteInfo]:
    """The files below a remote folder.

    Raises:
        DataError: If there are none, or the store cannot be read.
    """
    _listed[root] = _reported(root, lambda: listed_files(root))
    if not _listed[root]:
        raise DataError(f"{root} not found: check the bucket and the path")
    return _listed[root]


def local_copy(address: str) -> str:
    """The copy of a remote file in the cache, with what the address names inside of it."""
    place, inside = divided(address)
    path = RemoteFile(place).copy("".join(PurePosixPath(place).suffixes[-2:]))
    return f"{path}:{inside}" if inside else path


def is_remote_tar(address: str) -> bool:
    """Whether a remote file is a tar file without compression, as its ending has it."""
    return address.lower().endswith(_WHOLE_TAR)


def _reported(address: str, request: Callable):  # noqa: ANN202  # what the request returns
    """The result of a request.

    Raises:
        DataError: For its failure.
    """
    try:
        return request()
    except OSError as error:
        raise described_error(address, error) from error
