"""Parts of a manifest: the rows of one unit, read and written by one process; finished parts are never made again."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ssl_lightning.data.hashing import QUARANTINED, examine
from ssl_lightning.data.manifest.annotations import Annotations
from ssl_lightning.data.manifest.schema import PART, as_bytes, table_of, to_text, write_options
from ssl_lightning.data.manifest.units import FILES_OF_A_UNIT, Unit
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.container import forget_containers
from ssl_lightning.data.sources.opening import file_table
from ssl_lightning.data.sources.paths import divided
from ssl_lightning.data.sources.sidecars import is_sidecar
from ssl_lightning.data.sources.tar import is_tar
from ssl_lightning.errors import DataError
from ssl_lightning.files import write_atomically

UNOPENED = f"{QUARANTINED}unopened"
"""Status of a file that could not be opened; its part is made again by the next build."""
_COUNTED = 128
"""Files between two counts."""


@dataclass(frozen=True)
class Earlier:
    """A part of an earlier build, of the same shard or folder: its file and the bytes of its last member."""

    path: str
    last: bytes


@dataclass
class Built:
    """What building a part took.

    Attributes:
        read: Files that were read.
        decoded: Files that were decoded; others have the bytes of an earlier build.
        rows: Files of the part.
        unopened: Files that could not be opened.
    """

    read: int = 0
    decoded: int = 0
    rows: int = 0
    unopened: int = 0


Count = Callable[[int, int], None]
"""Is called with numbers of files and bytes while a part is built."""


class _Row(NamedTuple):
    """A row of a part without source and shard."""

    member: str
    offset: int
    size: int
    sha256: bytes | None = None
    phash: int | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    mode: str | None = None
    orientation: int | None = None
    status: str = ""
    label: str | None = None
    metadata: str | None = None
    changed_ns: int = 0


def part_path(folder: Path, name: str, finished: bool = True) -> Path:
    """The file of a part.

    Args:
        folder: Of the parts.
        name: Of the part.
        finished: False for one with files that could not be opened.
    """
    return folder / f"{name}{'' if finished else '.retry'}.parquet"


def existing_part(folder: Path, name: str) -> Path | None:
    """The file of a part, finished or not; None if it is missing."""
    return next((path for done in (True, False) if (path := part_path(folder, name, done)).exists()), None)


def build_part(unit: Unit, options: SourceOptions, folder: Path, earlier: list[Earlier], count: Count) -> Built:
    """Read the files of a unit and write its part atomically.

    Args:
        unit: The unit.
        options: How files are decoded.
        folder: Of the parts.
        earlier: Parts of an earlier build with the same options, of the same shard or folder.
        count: Is called with numbers of files and bytes.

    Raises:
        DataError: If the shard or folder is missing, damaged or unsafe, or the folder of the parts is missing.
        OSError: If the part cannot be written.
    """
    _reject_missing(unit, folder)
    forget_containers()
    built = Built()
    rows = _rows(unit, options, _Known(earlier), built, count)
    tables = [_table(unit, some) for some in _chunks(rows)]
    built.rows = sum(map(len, tables))
    table = pa.concat_tables(tables).unify_dictionaries() if tables else _table(unit, [])
    finished = built.unopened == 0
    write_atomically(
        part_path(folder, unit.name, finished),
        lambda file: parquet.write_table(table, file, **write_options(PART)),
    )
    if finished:
        part_path(folder, unit.name, finished=False).unlink(missing_ok=True)
    return built


def _reject_missing(unit: Unit, folder: Path) -> None:
    """Reject what another machine does not have: it would describe all files as ones that cannot be opened."""
    for path in (divided(unit.container)[0], str(folder)):
        if not os.path.exists(path):
            raise DataError(
                f"found no {os.path.abspath(path)}; expected the sources and the folder of the parts under the same "
                "path on each machine that builds, and nothing removed meanwhile"
            )


def _chunks(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    while some := list(islice(rows, FILES_OF_A_UNIT)):
        yield some


def _table(unit: Unit, rows: list[_Row]) -> pa.Table:
    columns: dict[str, Any] = {name: [row[place] for row in rows] for place, name in enumerate(_Row._fields)}
    columns |= {"source": [unit.source] * len(rows), "shard": [unit.shard] * len(rows)}
    return table_of(columns, PART)


def _rows(unit: Unit, options: SourceOptions, known: "_Known", built: Built, count: Count) -> Iterator[_Row]:
    if unit.files is None:
        label = None if is_tar(unit.container) and is_sidecar(options.label or "") else options.label
        table, changed = file_table(unit.container, options.selection, label), np.broadcast_to(unit.changed, ())
        if table.containers != [unit.container]:
            raise DataError(
                f"found {unit.container}, which refers to files beside it; expected files that hold their images: give "
                "the folder of these files to `data build`"
            )
    else:
        table, changed = _of_folder(unit), unit.files.changed
    annotations = Annotations(table, options, unit.files is not None)
    files = size = done = 0
    for row in _sorted_rows(table):
        member = to_text(table.names[row])
        time = int(changed[row]) if changed.ndim else int(changed)
        same = known.unchanged(member, int(table.sizes[row]), time) if unit.files is not None else None
        label, metadata = annotations.of(row)
        read = same or _read(table, row, member, time, options, known, built)
        yield read._replace(label=label, metadata=metadata)
        files, size = files + 1, size + int(table.sizes[row])
        if files == _COUNTED:
            count(files, size)
            done, files, size = done + size, 0, 0
    count(files, size if unit.files is not None else unit.size - done)


def _sorted_rows(table: ByteTable) -> Iterable[int]:
    """Rows sorted by the bytes of names, then by offset; tar files and folders are in this order."""
    rows, last = range(len(table)), b""
    for row in rows:
        name = os.fsencode(table.names[row])
        if name < last:
            return sorted(rows, key=lambda row: (os.fsencode(table.names[row]), table.offsets[row]))
        last = name
    return rows


def _of_folder(unit: Unit) -> ByteTable:
    assert unit.files is not None
    length = len(unit.files.names)
    zeros, none = np.zeros(length, dtype=np.int32), np.full(length, -1)
    return ByteTable([unit.container], zeros, unit.files.names, none, unit.files.sizes)


def _read(
    table: ByteTable, row: int, member: str, changed: int, options: SourceOptions, known: "_Known", built: Built
) -> _Row:
    offset, size = int(table.offsets[row]), int(table.sizes[row])
    try:
        data = table.read(row)
    except OSError:
        built.unopened += 1
        return _Row(member, offset, size, status=UNOPENED, changed_ns=changed)
    built.read += 1
    same = known.with_bytes(member, data)
    if same is not None:
        return same._replace(offset=offset, changed_ns=changed)
    if offset < 0:
        size = len(data)
    built.decoded += 1
    found = examine(data, options)
    described = _Row(member, offset, size, found.sha256, found.phash, status=found.status, changed_ns=changed)
    header = found.header
    if header is None:
        return described
    return described._replace(
        width=header.width,
        height=header.height,
        format=header.format,
        mode=header.mode,
        orientation=found.orientation,
    )


@dataclass(eq=False)
class _Known:
    """Rows of parts of an earlier build; parts are loaded when their names come up, and dropped afterwards."""

    left: list[Earlier]
    rows: dict[str, _Row] = field(default_factory=dict)
    last: bytes | None = None

    def unchanged(self, member: str, size: int, changed: int) -> _Row | None:
        """The row of a file with the same name, size and time of change, which need not be read."""
        row = self._find(member)
        return row if row is not None and (row.size, row.changed_ns) == (size, changed) and row.sha256 else None

    def with_bytes(self, member: str, data: bytes) -> _Row | None:
        """The row of a file with the same name and bytes, which need not be decoded."""
        row = self._find(member)
        return row if row is not None and row.sha256 == hashlib.sha256(data).digest() else None

    def _find(self, member: str) -> _Row | None:
        name = as_bytes(member) if self.left or self.last is not None else b""
        while self.left and (self.last is None or name > self.last):
            part = self.left.pop(0)
            self.rows, self.last = _loaded(part.path), part.last
        return self.rows.get(member)


def _loaded(path: str) -> dict[str, _Row]:
    try:
        table = parquet.read_table(path, columns=list(_Row._fields), page_checksum_verification=True)
    except (pa.ArrowException, OSError):  # removed or damaged: everything is read
        return {}
    columns = [table[name].to_pylist() for name in _Row._fields]
    return {row[0]: _Row(*row) for row in zip(*columns, strict=True)}


def last_member(path: Path) -> str:
    """The last member of a part, as text; empty for a part without rows."""
    names = parquet.read_table(path, columns=["member"])["member"]
    return names[-1].as_py() if len(names) else ""
