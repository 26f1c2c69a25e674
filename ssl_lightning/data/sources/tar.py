"""Tar files: the table of their images, and reading by offset."""

import os
import re
import weakref
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.container import LARGEST_SIDECAR, Container, sidecar_names
from ssl_lightning.data.sources.found import FoundFiles
from ssl_lightning.data.sources.selection import HEAD, Selection
from ssl_lightning.data.sources.tar_index import TarIndex, index_tar
from ssl_lightning.errors import DataError

_ENDINGS = re.compile(r"\.(tar(\.(xz|gz|bz2))?|tgz|txz|tbz2?)\Z", re.IGNORECASE)


class TarFile(Container):
    """A tar file that is open for reading; it is not compressed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes of a member."""
        return os.pread(self.descriptor, size, offset)

    def sidecar(self, name: str, ending: str) -> bytes | None:
        """Return the content of a member beside an image, up to 1 MiB; the headers are read on the first call."""
        for beside in sidecar_names(name, ending):
            if place := self._members.get(beside):
                return os.pread(self.descriptor, min(place[1], LARGEST_SIDECAR), place[0])
        return None

    @cached_property
    def _members(self) -> dict[str, tuple[int, int]]:
        """Offset and size of each member."""
        try:
            return places_in(index_tar(Path(self.path)))
        except DataError as error:
            raise OSError(str(error)) from error


def places_in(index: TarIndex) -> dict[str, tuple[int, int]]:
    """Offset and size of each member by name."""
    return dict(zip(index.names, zip(index.offsets.tolist(), index.sizes.tolist(), strict=True), strict=True))


def is_tar(name: str) -> bool:
    """Whether a file name has the ending of a tar file."""
    return _ENDINGS.search(name) is not None


def tar_table(path: Path, selection: Selection) -> ByteTable:
    """The images in a tar file.

    Raises:
        DataError: If it is broken or unsafe.
    """
    index = index_tar(path)

    def head(row: int) -> bytes:
        at, size = int(index.offsets[row]), min(HEAD, int(index.sizes[row]))
        if index.unpacked is not None:
            return index.unpacked[at : at + size].tobytes()
        with path.open("rb", buffering=0) as file:
            file.seek(at)
            return file.read(size)

    return table_of_index(str(path), index, head, selection)


def table_of_index(path: str, index: TarIndex, head: Callable[[int], bytes], selection: Selection) -> ByteTable:
    """The images among the members of a tar file.

    Args:
        path: Of the container.
        index: The members.
        head: Returns the first bytes of a member by its number.
        selection: Patterns of file names.
    """
    files = FoundFiles(selection)
    for row, name in enumerate(index.names):
        files.add(name, row, partial(head, row))
    order = files.order()
    rows = np.array([row for _, row in order], dtype=np.int64)
    names, zeros = PackedNames([name for name, _ in order]), np.zeros(len(rows), dtype=np.int32)
    offsets, sizes = index.offsets[rows], index.sizes[rows]
    if index.unpacked is None:
        return ByteTable([path], zeros, names, offsets, sizes, skipped=files.skipped)
    others = sorted(set(range(len(index.names))) - set(rows.tolist()))
    beside = {index.names[row]: (int(index.offsets[row]), int(index.sizes[row])) for row in others}
    return ByteTable([path], zeros, names, offsets, sizes, index.unpacked, beside, files.skipped)
