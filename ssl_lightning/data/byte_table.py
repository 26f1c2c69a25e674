"""ByteTable: where the bytes of encoded images are, in folders and tar files."""

import hashlib
import os
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from ssl_lightning.data.dataset import PackedNames


@dataclass(frozen=True, eq=False)
class ByteTable:
    """Locations of the bytes of images. These are arrays, not lists, so that workers read them without copying.

    Attributes:
        containers: Folders and tar files.
        container: Index of the container of each image.
        names: Path of each image within its container.
        offsets: First byte within the container; -1 for a separate file.
        sizes: Length in bytes.
        unpacked: The decompressed content of the only container, if it is compressed.
        skipped: Names of the files in the containers that are no images, by reason.
    """

    containers: list[str]
    container: Int32[np.ndarray, "N"]
    names: PackedNames
    offsets: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]
    unpacked: UInt8[np.ndarray, "bytes"] | None = None
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, row: int) -> bytes:
        """Return the bytes of one image.

        Raises:
            OSError: If the file is missing or cannot be read.
        """
        offset, size = int(self.offsets[row]), int(self.sizes[row])
        if self.unpacked is not None:
            return self.unpacked[offset : offset + size].tobytes()
        container = self.containers[self.container[row]]
        if offset >= 0:
            return os.pread(_shard(container).descriptor, size, offset)
        with open(os.path.join(container, self.names[row]), "rb") as stream:
            return stream.read()

    def name(self, row: int) -> str:
        """Container and name of one image."""
        return os.path.join(self.containers[self.container[row]], self.names[row])

    def take(self, rows: Int64[np.ndarray, "M"]) -> "ByteTable":
        """The table of these rows."""
        names = PackedNames([self.names[row] for row in rows])
        container, offsets, sizes = self.container[rows], self.offsets[rows], self.sizes[rows]
        return replace(self, container=container, names=names, offsets=offsets, sizes=sizes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and their order, without content; the location of the top folder does not count."""
        state = hashlib.sha256()
        for block in (self.names.block, self.names.ends, self.sizes):
            state.update(len(block).to_bytes(8, "little") + block.tobytes())
        return state.hexdigest()


class _Shard:
    """A tar file that is open for reading. Positions are given per read, so that processes can share it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=256)
def _shard(path: str) -> _Shard:
    return _Shard(path)
