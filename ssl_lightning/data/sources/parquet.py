"""Parquet files of encoded images: the table of their rows, and reading by row group."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_lightning.data.sources.block_size import LARGEST_BLOCK, TooLargeError
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.columns import Rows, image_column, parts
from ssl_lightning.data.sources.container import Container
from ssl_lightning.data.sources.paths import divided
from ssl_lightning.data.sources.recent import RECENT
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.errors import DataError
from ssl_lightning.progress import progress

FAILURES = (OSError, pa.ArrowException, MemoryError)
"""What pyarrow raises for a file that is missing, damaged or encrypted, or of features that it does not know."""
_MOST_AT_ONCE = 256
"""Rows that are decoded at once."""


class ParquetFile(Container):
    """A Parquet file. Row groups that were read last are kept, `recent.MOST_BYTES` in all files together."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        try:
            self.file = _open(path)
            self.column = image_column(self.file.schema_arrow, path)
        except (pa.ArrowException, DataError) as error:
            raise OSError(f"{path}: {error}") from error
        self.starts = np.cumsum([0, *_group_lengths(self.file)])

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes of the image of a row; none of a row without an image."""
        group = int(np.searchsorted(self.starts, offset, side="right")) - 1
        if not 0 <= group < len(self.starts) - 1:
            raise OSError(f"{self.path} has no row {offset}")
        block = RECENT.get((self, group), lambda: self._group(group))
        return block[offset - int(self.starts[group])].as_py() or b""

    def _group(self, group: int) -> pa.ChunkedArray:
        chunks, held = [], 0
        try:
            for batch in _batches(self.file, group, [self.column]):
                chunks.append(parts(batch.column(0))[0])
                held += chunks[-1].nbytes
                if held > LARGEST_BLOCK:
                    raise OSError(f"{self.path}, row group {group}: more than {LARGEST_BLOCK} bytes")
        except (pa.ArrowException, MemoryError) as error:
            raise OSError(f"{self.path}, row group {group}: {error}") from error
        return pa.chunked_array(chunks)


def parquet_table(source: str, selection: Selection, label: str | None) -> ByteTable:
    """The images of a Parquet file, in the order of its rows. The file is read once, for the sizes of the images.

    Args:
        source: The file, with the image column after a colon where there are several.
        selection: Patterns of names.
        label: Column of labels; see `columns.label_column`.

    Raises:
        DataError: If it cannot be read, has no image column, or has row groups of more than 1 GiB.
    """
    path = divided(source)[0]
    try:
        file = _open(source)
        rows, start = Rows(source, file.schema_arrow, label), 0
        for group in progress(range(file.num_row_groups), f"listing {path}", "row groups"):
            for batch in _batches(file, group, rows.columns):
                rows.add(batch, start)
                start += len(batch)
    except TooLargeError as error:
        raise DataError(f"{path} {error}: write it with a smaller row_group_size, such as 100") from error
    except FAILURES as error:
        raise DataError(f"{path} cannot be read as Parquet ({one_reason(error)}): make or copy it again") from error
    return rows.table(selection)


def one_reason(error: BaseException) -> str:
    """The first line of a message of pyarrow."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _open(source: str) -> pq.ParquetFile:
    return pq.ParquetFile(divided(source)[0], pre_buffer=False)


def _group_lengths(file: pq.ParquetFile) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def _batches(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a row group, so many at once that a value that is repeated by a dictionary does not fill the memory.

    Raises:
        TooLargeError: If the row group is larger than 1 GiB.
    """
    metadata = file.metadata.row_group(group)
    chunks = [metadata.column(number) for number in range(metadata.num_columns)]
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    if size > LARGEST_BLOCK:
        raise TooLargeError(f"holds a row group of {size:,} bytes; expected at most {LARGEST_BLOCK:,}")
    at_once = max(1, min(_MOST_AT_ONCE, 2 * LARGEST_BLOCK // max(1, size)))
    return file.iter_batches(batch_size=at_once, row_groups=[group], columns=columns, use_threads=False)
