"""FoundFiles: the images among the files of a folder or tar file, and the others by the reason why they are none."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.selection import Selection


@dataclass(eq=False)
class FoundFiles:
    """Images by name, and skipped files by reason.

    Attributes:
        selection: Patterns of file names.
        images: Name and key of each image.
        skipped: Names by reason.
    """

    selection: Selection
    images: list[tuple[str, Any]] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, key: Any, head: Callable[[], bytes], within: str = "") -> None:
        """Take a file as an image or skip it.

        Args:
            name: Its path within the folder or tar file.
            key: Kept beside the name of an image.
            head: Returns its first bytes.
            within: Path of the folder within the source, to which patterns apply, with a slash at the end.
        """
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


def selected(table: ByteTable, selection: Selection) -> ByteTable:
    """The rows that no pattern leaves out; the others are named in `skipped`."""
    if not (selection.include or selection.exclude):
        return table
    reasons = [selection.left_out_because(name) for name in table.names]
    for name, reason in zip(table.names, reasons, strict=True):
        if reason:
            table.skipped.setdefault(reason, []).append(name)
    return table.take(np.array([row for row, reason in enumerate(reasons) if not reason], dtype=np.int64))


def size_of(path: str) -> int:
    """The size of a file; 0 if it is missing, which becomes apparent when it is read."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
