"""Arrow files and streams of encoded images, memory-mapped: the table of their rows, and reading by batch."""

import struct

import pyarrow as pa

from ssl_lightning.data.sources.block_size import LARGEST_BLOCK, TooLargeError
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.columns import Rows, image_column, parts
from ssl_lightning.data.sources.container import Container
from ssl_lightning.data.sources.parquet import FAILURES, one_reason
from ssl_lightning.data.sources.paths import divided
from ssl_lightning.data.sources.recent import RECENT
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.errors import DataError

_MAGIC = b"ARROW1\0\0"
_END = b"\xff\xff\xff\xff\0\0\0\0"
_BITS = 32
"""A row is `batch << 32 | row in the batch`."""


class ArrowFile(Container):
    """A memory-mapped Arrow file or stream.

    Batches without compression are not copied; others are kept as the row groups of Parquet files.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        try:
            self.schema, self.batches = _messages(path)
            self.column = image_column(self.schema, path)
        except (pa.ArrowException, struct.error, DataError) as error:
            raise OSError(f"{path}: {error}") from error

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes of the image of a row; none of a row without an image."""
        batch, row = offset >> _BITS, offset & ((1 << _BITS) - 1)
        if not 0 <= batch < len(self.batches):
            raise OSError(f"{self.path} has no batch {batch}")
        block = RECENT.get((self, batch), lambda: self._batch(batch))
        if row >= len(block):
            raise OSError(f"{self.path} has no row {row} in batch {batch}")
        return block[row].as_py() or b""

    def _batch(self, number: int) -> pa.ChunkedArray:
        try:
            return pa.chunked_array([parts(_read(self.batches[number], self.schema, [self.column]).column(0))[0]])
        except (pa.ArrowException, struct.error, MemoryError) as error:
            raise OSError(f"{self.path}, batch {number}: {error}") from error


def arrow_table(source: str, selection: Selection, label: str | None) -> ByteTable:
    """The images of an Arrow file or stream, in the order of its rows.

    Args:
        source: The file, with the image column after a colon where there are several.
        selection: Patterns of names.
        label: Column of labels; see `columns.label_column`.

    Raises:
        DataError: If it cannot be read, has no image column, or has batches of more than 1 GiB.
    """
    path = divided(source)[0]
    try:
        schema, batches = _messages(source)
        rows = Rows(source, schema, label)
        for number, message in enumerate(batches):
            rows.add(_read(message, schema, rows.columns), number << _BITS)
    except TooLargeError as error:
        raise DataError(f"{path} {error}: write it in smaller batches") from error
    except (*FAILURES, struct.error) as error:
        raise DataError(f"{path} cannot be read as Arrow ({one_reason(error)}): make or copy it again") from error
    return rows.table(selection)


def _messages(source: str) -> tuple[pa.Schema, list[pa.Message]]:
    """Schema and record batches. A file is a stream between two marks, so that both are read alike."""
    stream = pa.memory_map(divided(source)[0])
    is_file = stream.read(len(_MAGIC)) == _MAGIC
    expected = pa.ipc.open_file(stream).num_record_batches if is_file else None
    stream.seek(len(_MAGIC) if is_file else 0)
    reader = pa.MessageReader.open_stream(stream)
    try:
        schema, batches = pa.ipc.read_schema(reader.read_next_message()), []
    except StopIteration:
        raise pa.ArrowInvalid("no schema") from None
    for field in schema:
        if pa.types.is_dictionary(field.type):
            raise pa.ArrowInvalid(f"the dictionary column {field.name!r}; write its values")
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            if len(batches) != expected if is_file else stream.tell() != stream.size() or not _has_end(stream):
                raise pa.ArrowInvalid(f"it ends after {len(batches)} batches without its end mark") from None
            return schema, batches
        if message.type == "record batch":
            batches.append(message)


def _has_end(stream: pa.MemoryMappedFile) -> bool:
    """Whether a stream is whole: one that was cut between two batches is taken for a shorter one otherwise."""
    return stream.size() >= len(_END) and stream.read_at(len(_END), stream.size() - len(_END)) == _END


def _read(message: pa.Message, schema: pa.Schema, columns: list[str]) -> pa.RecordBatch:
    """Columns of a batch, checked, since a view of broken offsets would read foreign memory."""
    size = max(message.body.size, _unpacked_size(message))
    if size > LARGEST_BLOCK:
        raise TooLargeError(f"holds a batch of {size:,} bytes; expected at most {LARGEST_BLOCK:,}")
    batch = pa.ipc.read_record_batch(message, schema).select(columns)
    batch.validate(full=True)
    return batch


def _unpacked_size(message: pa.Message) -> int:
    """Bytes that a compressed batch declares to have once it is unpacked; 0 for a plain one."""
    head, body = memoryview(message.metadata), memoryview(message.body)
    at = struct.unpack_from("<I", head)[0]
    batch = _referred(head, _field(head, at, 2))
    if not _field(head, batch, 3):
        return 0
    buffers = _referred(head, _field(head, batch, 2))
    total = 0
    for number in range(struct.unpack_from("<I", head, buffers)[0]):
        start, length = struct.unpack_from("<qq", head, buffers + 4 + 16 * number)
        total += max(0, struct.unpack_from("<q", body, start)[0]) if length >= 8 else 0
    return total


def _field(head: memoryview, table: int, number: int) -> int:
    """Position of a field of a flatbuffer's table; 0 if it is not there."""
    layout = table - struct.unpack_from("<i", head, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", head, layout)[0]:
        return 0
    offset = struct.unpack_from("<H", head, layout + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _referred(head: memoryview, place: int) -> int:
    return place + struct.unpack_from("<I", head, place)[0]
