"""Labels and metadata of images for a manifest: from columns of their table, or from files beside them."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.container import sidecar_names
from ssl_lightning.data.sources.lists import METADATA, labels_in_folder
from ssl_lightning.data.sources.sidecars import is_sidecar, label_in

LARGEST_METADATA = 1 << 16
"""Bytes of the metadata of an image; longer ones are left out."""
JSON = "json"
"""Ending of the files that hold metadata."""


class Annotations:
    """The label and the metadata of each image of a unit.

    Args:
        table: Images of a shard or folder, with the labels of its columns.
        options: Which labels, and whether metadata are requested.
        is_folder: Whether the images are files of a folder.

    Raises:
        DataError: For labels from a list that is missing.
    """

    def __init__(self, table: ByteTable, options: SourceOptions, is_folder: bool) -> None:
        self.table, self.metadata = table, options.metadata
        is_beside = options.label is not None and is_sidecar(options.label) and table.labels is None
        self.kind = options.label if is_beside else None
        self.labels, self.classes = table.labels, table.classes
        if is_folder and options.label is not None and self.kind is None:
            self.labels, self.classes = labels_in_folder(Path(table.containers[0]), table.names, options.label)

    def of(self, row: int) -> tuple[str | None, str | None]:
        """Label and metadata; None where there are none, or they cannot be read."""
        return self._label(row), self._metadata(row) if self.metadata else None

    def _label(self, row: int) -> str | None:
        if self.kind is not None:
            content = self._sidecar(row, self.kind.partition(":")[0])
            label = None if content is None else label_in(content, self.kind)
            return None if label is None else _text(str(label))
        if self.labels is None or self.labels[row] < 0:
            return None
        return _text(self.classes[self.labels[row]])

    def _metadata(self, row: int) -> str | None:
        content = self._sidecar(row, JSON)
        if content is None or len(content) > LARGEST_METADATA:
            return None
        try:
            text = content.decode()
            return text.strip() if isinstance(json.loads(text), dict) else None
        except (ValueError, RecursionError):
            return None

    def _sidecar(self, row: int, ending: str) -> bytes | None:
        try:
            return self.table.sidecar(row, ending)
        except OSError:
            return None


def state_beside(root: Path, names: Iterable[str], options: SourceOptions) -> bytes:
    """What changes with the files beside the images of a folder that hold labels and metadata.

    Args:
        root: The folder.
        names: Paths of the images within it.
        options: Which labels, and whether metadata are requested.
    """
    endings = {JSON} if options.metadata else set()
    if options.label is not None and is_sidecar(options.label):
        endings.add(options.label.partition(":")[0])
    elif options.label is not None:
        return json.dumps([_state(root / name) for name in METADATA]).encode()
    files = [[_state(root / file) for file in sidecar_names(name, end)] for name in names for end in sorted(endings)]
    return json.dumps(files).encode() if endings else b""


def _state(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _text(value: str) -> str:
    """A value as text that every encoding can hold."""
    return value.encode("utf-8", "replace").decode()
