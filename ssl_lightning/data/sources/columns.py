"""Columns of a table of encoded images in the layout of Hugging Face datasets: which column holds what, row by row."""

import json
import os
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.found import selected, size_of
from ssl_lightning.data.sources.labels import ANY_LABEL, LABELS, listed, numbered
from ssl_lightning.data.sources.paths import divided
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.errors import DataError


def image_column(schema: pa.Schema, source: str) -> str:
    """The name of the column that holds encoded images: `struct<bytes, path>` or binary.

    Args:
        schema: Of the table.
        source: Path of the table, with the column after a colon where it is named.

    Raises:
        DataError: If there is none or more than one.
    """
    path, named = divided(source)
    found = [field.name for field in schema if _is_image(field.type)]
    if named and named not in found:
        raise DataError(f"{path} has no image column {named!r}; expected {listed(found) or _WANTED}: fix the path")
    marked = [name for name in found if _features(schema).get(name, {}).get("_type") == "Image"]
    for choice in ([named] if named else [], marked, found):
        if len(choice) == 1:
            return choice[0]
    if found:
        raise DataError(f"{path} has the image columns {listed(found)}; expected one: give {path}:{found[0]}")
    raise DataError(f"{path} has the columns {listed(schema.names)}; expected {_WANTED}")


_WANTED = "a column of encoded images, binary or struct<bytes, path>"


def label_column(schema: pa.Schema, source: str, label: str | None) -> str | None:
    """The name of the column of labels; None if none is requested or, for `ANY_LABEL`, there.

    Raises:
        DataError: If a named column is not there or holds no labels, or several could be meant.
    """
    if label is None:
        return None
    found = [field.name for field in schema if _is_label(field.type)]
    if label != ANY_LABEL:
        if label not in found:
            raise DataError(f"{source} has no column {label!r} of labels; expected data.label of {listed(found)}")
        return label
    marked = [name for name in found if _features(schema).get(name, {}).get("_type") == "ClassLabel"]
    usual = [name for name in LABELS if name in found]
    if "label" not in found and len(marked) > 1:
        raise DataError(f"{source} has the label columns {listed(marked)}; expected one: give --data.label {marked[0]}")
    return next(iter(["label"] if "label" in usual else marked or usual), None)


class Rows:
    """The rows of a table while its batches are read.

    Args:
        source: Path of the table.
        schema: Its columns.
        label: See `label_column`.
    """

    def __init__(self, source: str, schema: pa.Schema, label: str | None) -> None:
        self.source = source
        self.image = image_column(schema, source)
        self.label = label_column(schema, source, label)
        self.names_of_classes = _features(schema).get(self.label or "", {}).get("names")
        self._sizes: list[np.ndarray] = []
        self._offsets: list[np.ndarray] = []
        self._paths: list[str | None] = []
        self._labels: list[Any] = []

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [self.image] + ([self.label] if self.label else [])

    def add(self, batch: pa.RecordBatch, offset: int) -> None:
        """Take the next rows.

        Args:
            batch: Their columns.
            offset: In `ByteTable.offsets` of the first of them.
        """
        content, paths = parts(batch.column(self.image))
        lengths = pc.fill_null(pc.binary_length(content), -1)  # type: ignore[attr-defined]
        self._sizes.append(lengths.to_numpy(zero_copy_only=False).astype(np.int64))
        self._offsets.append(np.arange(offset, offset + len(batch), dtype=np.int64))
        self._paths += [None] * len(batch) if paths is None else paths.to_pylist()
        if self.label:
            self._labels += batch.column(self.label).to_pylist()

    def table(self, selection: Selection) -> ByteTable:
        """The table of all rows that patterns do not leave out.

        Raises:
            DataError: If a row without bytes has a path that leaves the folder of the table, or a label is no class.
        """
        none = np.zeros(0, dtype=np.int64)
        sizes, offsets = np.concatenate([none, *self._sizes]), np.concatenate([none, *self._offsets])
        names, containers = self._names(), [self.source]
        container = np.zeros(len(sizes), dtype=np.int32)
        for row in np.flatnonzero(sizes < 0).tolist():
            sizes[row] = 0  # of nothing, which is an empty file
            if path := self._paths[row]:
                containers[1:] = [os.path.dirname(self.source) or "."]
                container[row], offsets[row], names[row] = 1, -1, self._checked(path)
                sizes[row] = size_of(os.path.join(containers[1], path))
        labels, classes = numbered(self._labels, self.names_of_classes, self.source) if self.label else (None, [])
        table = ByteTable(containers, container, PackedNames(names), offsets, sizes, labels=labels, classes=classes)
        return selected(table, selection)

    def _names(self) -> list[str]:
        """The paths of the rows if they are distinct and stay below a folder, else the numbers of the rows."""
        paths = [path for path in self._paths if path is not None]
        if len(set(paths)) == len(self._paths) and all(path and _stays(path) for path in paths):
            return paths
        return [str(row) for row in range(len(self._paths))]

    def _checked(self, path: str) -> str:
        if not _stays(path):
            raise DataError(f"{self.source} holds a path that leaves its folder, {path!r}: write relative paths only")
        return path


def parts(column: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Encoded images and, if the column has them, paths."""
    if not pa.types.is_struct(column.type):
        return column, None
    paths = pc.struct_field(column, "path") if column.type.get_field_index("path") >= 0 else None  # type: ignore[attr-defined]
    return pc.struct_field(column, "bytes"), paths  # type: ignore[attr-defined]


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_binary(kind.field(at).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The description of the columns in the metadata of a Hugging Face dataset; empty without it."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def _stays(path: str) -> bool:
    """Whether a path leads to the folder that it starts from, or below."""
    return not path.startswith("/") and ".." not in PurePosixPath(path).parts and "\0" not in path
