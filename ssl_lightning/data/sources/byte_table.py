"""ByteTable: where the bytes of encoded images are, in folders, tar files and other containers."""

import hashlib
import os
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from ssl_lightning.data.class_names import joined_classes
from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.sources.container import LARGEST_SIDECAR, open_container, sidecar_names
from ssl_lightning.errors import DataError
from ssl_lightning.types import UNLABELLED


@dataclass(frozen=True, eq=False)
class ByteTable:
    """Locations of the bytes of images. These are arrays, not lists, so that workers read them without copying.

    Attributes:
        containers: Paths of folders, tar files and other containers.
        container: Index of the container of each image.
        names: Path of each image within its container.
        offsets: First byte within a tar file, row within a table or array; -1 for a separate file.
        sizes: Length in bytes.
        unpacked: The decompressed content of the only container, if it is compressed.
        beside: Offset and size of each file in `unpacked` that is no image.
        skipped: Names of the files in the containers that are no images, by reason.
        labels: Class of each image, if the container has labels and they were requested.
        classes: Names of the classes of `labels`.
        versions: What changes with the content of each container, if it is remote.
    """

    containers: list[str]
    container: Int32[np.ndarray, "N"]
    names: PackedNames
    offsets: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]
    unpacked: UInt8[np.ndarray, "bytes"] | None = None
    beside: dict[str, tuple[int, int]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    labels: Int64[np.ndarray, "N"] | None = None
    classes: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

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
        return open_container(self.containers[self.container[row]]).read(self.names[row], offset, size)

    def name(self, row: int) -> str:
        """Container and name of one image."""
        return os.path.join(self.containers[self.container[row]], self.names[row])

    def sidecar(self, row: int, ending: str) -> bytes | None:
        """Return the file with the name of an image and another ending, such as `json`; None if there is none.

        Raises:
            OSError: If it cannot be read.
        """
        container = self.containers[self.container[row]]
        if self.unpacked is None:
            return open_container(container).sidecar(self.names[row], ending)
        for name in sidecar_names(self.names[row], ending):
            if place := self.beside.get(name):
                return self.unpacked[place[0] : place[0] + min(place[1], LARGEST_SIDECAR)].tobytes()
        return None

    def take(self, rows: Int64[np.ndarray, "M"]) -> "ByteTable":
        """The table of these rows."""
        names = PackedNames([self.names[row] for row in rows.tolist()])
        container, offsets, sizes = self.container[rows], self.offsets[rows], self.sizes[rows]
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, container=container, names=names, offsets=offsets, sizes=sizes, labels=labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and their order, without content; the location of the top folder does not count."""
        state = hashlib.sha256()
        for block in (self.names.block, self.names.ends, self.sizes):
            state.update(len(block).to_bytes(8, "little") + block.tobytes())
        return state.hexdigest()


def joined_tables(tables: list[ByteTable]) -> ByteTable:
    """One table of several. Classes are joined by name.

    Raises:
        DataError: If one of them is decompressed in memory.
    """
    if len(tables) == 1:
        return tables[0]
    if any(table.unpacked is not None for table in tables):
        raise DataError(f"{tables[0].containers[0]} and the others are compressed: unpack shards to plain tar files")
    starts = np.cumsum([0, *(len(table.containers) for table in tables)])
    labels, classes = _joined_labels(tables)
    return ByteTable(
        [container for table in tables for container in table.containers],
        np.concatenate([table.container + start for table, start in zip(tables, starts, strict=False)], dtype=np.int32),
        PackedNames([name for table in tables for name in table.names]),
        np.concatenate([table.offsets for table in tables]),
        np.concatenate([table.sizes for table in tables]),
        skipped=_merged([table.skipped for table in tables]),
        labels=labels,
        classes=classes,
        versions=[version for table in tables for version in table.versions],
    )


def _joined_labels(tables: list[ByteTable]) -> tuple[np.ndarray | None, list[str]]:
    if all(table.labels is None for table in tables):
        return None, []
    classes = joined_classes([table.classes for table in tables if table.labels is not None])
    return np.concatenate([_relabeled(table, classes) for table in tables]), classes


def _relabeled(table: ByteTable, classes: list[str]) -> Int64[np.ndarray, "N"]:
    if table.labels is None:
        return np.full(len(table), UNLABELLED, dtype=np.int64)
    place = {name: number for number, name in enumerate(classes)}
    new = np.array([*(place[name] for name in table.classes), UNLABELLED], dtype=np.int64)
    return new[table.labels]  # UNLABELLED is -1, the last entry


def _merged(skipped: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for each in skipped:
        for reason, names in each.items():
            merged.setdefault(reason, []).extend(names)
    return merged
