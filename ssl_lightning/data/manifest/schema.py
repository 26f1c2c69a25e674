"""Columns of a manifest and of its parts, the text of file names, and access to a manifest's Parquet files."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import UInt8
from pyarrow import parquet

from ssl_lightning.errors import DataError, UsageError

pc: Any = pyarrow.compute
"""Functions of pyarrow; they are made when it is imported, so that no checker knows them."""
VERSION = 1
KEY = b"ssl_lightning.manifest"
"""Key of the description in the metadata of the file: version, fingerprint, next id and options of the build."""
_WORDS = pa.dictionary(pa.int32(), pa.string())
DESCRIPTION = (
    pa.field("source", _WORDS, nullable=False),
    pa.field("shard", _WORDS, nullable=False),
    pa.field("member", pa.string(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("sha256", pa.binary(32)),
    pa.field("phash", pa.uint64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("format", _WORDS),
    pa.field("mode", _WORDS),
    pa.field("orientation", pa.uint8()),
    pa.field("status", _WORDS, nullable=False),
    pa.field("label", pa.string()),
    pa.field("metadata", pa.string()),
)
"""Columns that describe a row; see the documentation of manifests."""
SCHEMA = pa.schema([pa.field("sample_id", pa.int64(), nullable=False), *DESCRIPTION])
"""Columns of a manifest."""
PART = pa.schema([*DESCRIPTION, pa.field("changed_ns", pa.int64(), nullable=False)])
"""Columns of a part: without an id, with the time of change of the file in nanoseconds (of a tar: of the tar)."""
NEEDED = ("sample_id", "source", "shard", "member", "offset", "size", "sha256", "status")
"""Columns without which a table is no manifest."""
IDENTIFYING = ("sample_id", "member", "sha256", "status")
"""Columns by which a table is taken for a manifest."""
BATCH = 131_072
"""Rows of a row group."""
DICTIONARIES = [field.name for field in SCHEMA if pa.types.is_dictionary(field.type)]
_BROKEN = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError)
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_UNUSUAL = re.compile(r"[\\\udc80-\udcff]")


def to_text(name: str) -> str:
    r"""A name as text: a backslash, and each byte that is not UTF-8, becomes `\xNN` with two hexadecimal digits.

    Args:
        name: From the operating system; bytes that are not text are surrogates.
    """
    return _UNUSUAL.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name)


def from_text(text: str) -> str:
    """The name of a text of `to_text`."""
    return _ESCAPED.sub(lambda match: _byte(int(match[1], 16)), text)


def _byte(value: int) -> str:
    return chr(value) if value < 0x80 else chr(0xDC00 + value)


def as_bytes(text: str) -> bytes:
    """The bytes of the name of a text, by which rows are sorted."""
    return from_text(text).encode("utf-8", "surrogateescape") if "\\" in text else text.encode()


def names_of(column: pa.Array | pa.ChunkedArray) -> list[str]:
    """The names of a column of texts."""
    texts = column.to_pylist()
    return [from_text(text) for text in texts] if pc.any(pc.match_substring(column, "\\")).as_py() else texts


def table_of(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """A table of this schema; columns of words are encoded by dictionaries."""
    arrays = []
    for field in schema:
        values = columns[field.name]
        words = pa.types.is_dictionary(field.type)
        kind = field.type.value_type if words else field.type
        array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        array = pc.cast(array, kind) if array.type != kind else array
        arrays.append(array.dictionary_encode() if words else array)
    return pa.table(arrays, schema=schema)


def write_options(schema: pa.Schema) -> dict[str, Any]:
    """Options of the Parquet writer: equal rows give equal bytes; pages have checksums, which reading compares."""
    words = [name for name in DICTIONARIES if name in schema.names]
    return {"compression": "zstd", "use_dictionary": words, "write_page_checksum": True}


def files_of(path: Path) -> list[Path]:
    """The Parquet files of a manifest: itself, or those of a folder, sorted by the bytes of their names.

    Raises:
        DataError: If there is none.
    """
    if path.is_dir():
        files = sorted((file for file in path.glob("*.parquet") if not file.name.startswith(".")), key=str)
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise DataError(f"found no manifest at {path}; expected a Parquet file, or a folder of them: build it first")
    return files


def is_manifest(path: Path) -> bool:
    """Whether a path is a Parquet file, or a folder of them, with the identifying columns of a manifest."""
    if not (path.is_dir() or path.suffix == ".parquet"):
        return False
    first = next(iter(sorted(path.glob("*.parquet"))), None) if path.is_dir() else path
    try:
        return first is not None and set(IDENTIFYING) <= set(parquet.read_schema(first).names)
    except _BROKEN:
        return False


def reject_manifest(path: Path, option: str) -> None:
    """Reject a file to write that is a manifest, by whatever path: its ids would be lost.

    Args:
        path: File that will be written later.
        option: The option with the path.

    Raises:
        UsageError: If it is a manifest.
    """
    if path.is_file() and is_manifest(path):
        raise UsageError(f"found {option}={path}, a manifest (its ids would be lost); expected another name")


def description_of(path: Path) -> dict[str, Any]:
    """The description in the metadata of a file; empty for a manifest of another program.

    Raises:
        DataError: If the file is damaged, lacks a column, or is of a later version.
    """
    try:
        with parquet.ParquetFile(path) as file:
            names, metadata = file.schema_arrow.names, file.metadata.metadata or {}
        described = json.loads(metadata[KEY]) if KEY in metadata else {}
    except _BROKEN as error:
        raise _damaged(path, error) from error
    if missing := [name for name in NEEDED if name not in names]:
        raise DataError(f"found {path} without the column {missing[0]!r}; expected a manifest of `data build`")
    if not isinstance(described, dict) or described.get("version", VERSION) != VERSION:
        raise DataError(f"found {path} of another version of manifests; expected version {VERSION}: build it again")
    return described


def batches_of(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a manifest in batches, in the order of the file; its words are no dictionaries.

    Args:
        path: The file, or a folder of them.
        columns: Names; None for all.

    Raises:
        DataError: If a file is damaged or not of this schema.
    """
    names = [field.name for field in SCHEMA] if columns is None else list(columns)
    for file in files_of(path):
        expected = description_of(file).get("columns", {})
        digests = ColumnDigests(names)
        try:
            for table in _read(file, names):
                digests.add(table)
                yield table
        except DataError:
            raise
        except _BROKEN as error:
            raise _damaged(file, error) from error
        if any(expected.get(name, digest) != digest for name, digest in digests.hexdigests().items()):
            raise DataError(f"found {file} changed since it was written (its sha256 differs); restore it or build it")


class ColumnDigests:
    """The SHA-256 of each column over batches of `BATCH` rows, which detects damage that Parquet's checksums do not.

    Args:
        names: Of the columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._states = {name: hashlib.sha256() for name in names}

    def add(self, table: pa.Table) -> None:
        """Add a batch; its words are no dictionaries."""
        for name, state in self._states.items():
            column = table[name]
            array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            state.update(len(array).to_bytes(8, "little"))
            if array.null_count:
                state.update(np.asarray(array.is_valid()).tobytes())
            if pa.types.is_string(array.type):
                ends = np.frombuffer(array.buffers()[1], dtype="<i4")[array.offset : array.offset + len(array) + 1]
                content = array.buffers()[2]
                state.update(np.diff(ends).tobytes())
                state.update(b"" if content is None else memoryview(content)[ends[0] : ends[-1]])
            elif pa.types.is_fixed_size_binary(array.type):
                state.update(digests_of(array).data)
            else:
                state.update(np.ascontiguousarray(pc.fill_null(array, 0).to_numpy(zero_copy_only=False)).data)

    def hexdigests(self) -> dict[str, str]:
        """The SHA-256 by column."""
        return {name: state.hexdigest() for name, state in self._states.items()}


def digests_of(column: pa.Array | pa.ChunkedArray) -> UInt8[np.ndarray, "n 32"]:
    """The bytes of a column of SHA-256; zeros for a file that could not be opened."""
    filled = pc.fill_null(column, pa.scalar(bytes(32), pa.binary(32))) if column.null_count else column
    array = filled.combine_chunks() if isinstance(filled, pa.ChunkedArray) else filled
    content = array.buffers()[1]
    values = np.frombuffer(content if content is not None else b"", dtype=np.uint8)
    return values[32 * array.offset : 32 * (array.offset + len(array))].reshape(-1, 32)


def _read(path: Path, names: list[str]) -> Iterator[pa.Table]:
    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        there = set(file.schema_arrow.names)
        for group in range(file.num_row_groups):  # iter_batches keeps what it has read
            table = file.read_row_group(group, columns=[name for name in names if name in there])
            yield pa.table({name: _plain(table, name) for name in names})


def _plain(table: pa.Table, name: str) -> pa.Array:
    """A column with the type of the schema, without a dictionary; nulls where it is absent."""
    kind = SCHEMA.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if name not in table.column_names:
        return pa.nulls(len(table), kind)
    column = table[name].combine_chunks()
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    column = pc.cast(column, kind) if column.type != kind else column
    if name in NEEDED and name != "sha256" and column.null_count:
        raise DataError(f"found a manifest without a value in some rows of {name!r}; expected one in each")
    return column


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(f"found {path}, which is no whole Parquet file ({reason}); restore it, or build it again")
