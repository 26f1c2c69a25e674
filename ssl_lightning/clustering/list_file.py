"""Lists of rows in a Parquet file, with the SHA-256 of every column in its schema, which is checked on reading."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.errors import DataError
from ssl_lightning.files import sweep_temporary, write_atomically

log = logging.getLogger(__name__)
DIGESTS, DATA = b"sha256", b"data"
"""Keys of the schema's metadata: the SHA-256 of each column as JSON, and the fingerprint of the listed data."""
KEPT = "kept"
"""Column of a subset file: whether a row is kept."""
_AGAIN = "make it again"


def write_list(path: Path, columns: dict[str, Any], fingerprint: str) -> None:
    """Write a table atomically.

    Args:
        path: The file, `.parquet`.
        columns: pyarrow arrays of equal lengths, by name.
        fingerprint: Fingerprint of the listed data.

    Raises:
        ImportError: If pyarrow is not installed.
    """
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(columns)
    digests = {name: _digest(name, table[name], fingerprint) for name in table.column_names}
    metadata = {DATA: fingerprint.encode(), DIGESTS: json.dumps(digests, sort_keys=True).encode()}
    table = table.replace_schema_metadata(metadata)
    sweep_temporary(path.parent, path.name)
    write_atomically(path, lambda file: parquet.write_table(table, file))


def column_names(path: str | Path) -> list[str]:
    """The columns of a list; empty for a file that cannot be read, which `read_list` reports."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_schema(str(path)).names
    except (pa.ArrowException, OSError, ValueError):
        return []


def read_list(path: str | Path, columns: Sequence[str], most: int) -> tuple[dict[str, np.ndarray], str | None]:
    """Read columns of integers and the fingerprint of the data. Each column is compared with its SHA-256.

    A file without SHA-256 (of an earlier version, or made by the user) is read and logged. A file of this version has
    one for each of its columns.

    Args:
        path: The file.
        columns: Names of the columns.
        most: Largest number of rows.

    Raises:
        DataError: If the file is damaged or changed, lacks a column, has a column that holds no integers, or is too
            long.
    """
    import pyarrow as pa  # optional
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(str(path)) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            # the metadata is stored twice, so that one changed bit cannot hide it
            metadata = (schema.metadata or {}) | (file.metadata.metadata or {})
            _check_schema(path, schema, columns)
            if not 0 <= rows <= most:
                raise DataError(f"found {path} with {rows} rows; expected {most} at most, one per sample of the data")
            fingerprint = metadata[DATA].decode() if DATA in metadata else None
            digests = json.loads(metadata[DIGESTS]) if DIGESTS in metadata else None
            table = file.read(columns=list(columns))
            arrays = {name: table[name].cast(pa.int64()) for name in columns}
        empty = [name for name in columns if arrays[name].null_count]
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"found {path}, which is not a whole parquet file ({reason}); {_AGAIN}") from error
    if empty:
        raise DataError(f"found {path} without a value in some rows of {empty[0]}; expected an integer in each")
    if digests is None:
        log.warning(
            "found no sha256 in %s (written by an earlier version or another program): it is read unchecked", path
        )
    else:
        _check_digests(path, table, columns, digests, fingerprint)
    return {name: arrays[name].to_numpy() for name in columns}, fingerprint


def _check_schema(path: str | Path, schema: Any, columns: Sequence[str]) -> None:
    from pyarrow import types

    for name in columns:
        if name not in schema.names:
            raise DataError(f"{path} has no column {name!r}, only {', '.join(schema.names)}: give one of these")
        kind = schema.field(name).type
        if not (types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind)):
            raise DataError(f"found {path} with a column {name!r} of {kind}; expected integers")


def _check_digests(path: str | Path, table: Any, columns: Sequence[str], digests: Any, fingerprint: str | None) -> None:
    whole = isinstance(digests, dict) and all(
        digests.get(name) == _digest(name, table[name], fingerprint or "") for name in columns
    )
    if not whole:
        raise DataError(f"found {path} changed since it was written (its sha256 differs); {_AGAIN}")


def _digest(name: str, column: Any, fingerprint: str) -> str:
    """The SHA-256 of a column: its name, type, length and values, and the fingerprint of the data."""
    described = [name, str(column.type), len(column), fingerprint]
    digest = hashlib.sha256(json.dumps(described).encode())
    values = column.to_numpy()
    if values.dtype == object:
        texts = [str(value).encode() for value in values]
        digest.update(np.array([len(text) for text in texts], dtype=np.int64).data)
        digest.update(b"".join(texts))
    else:
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
