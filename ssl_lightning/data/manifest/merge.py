"""From parts to a manifest: rows sorted by (source, shard, bytes of the member), with ids that are kept between builds.

Parts and the previous manifest are in the same order, so that they are joined as two streams. Memory depends on the
largest part, not on the number of rows.
"""

import json
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ssl_lightning.data.hashing import MISSING, OK
from ssl_lightning.data.manifest.fingerprint import RowsFingerprint
from ssl_lightning.data.manifest.schema import (
    BATCH,
    KEY,
    SCHEMA,
    VERSION,
    ColumnDigests,
    as_bytes,
    batches_of,
    description_of,
    digests_of,
    pc,
    table_of,
    write_options,
)
from ssl_lightning.errors import DataError
from ssl_lightning.files import sha256_of, write_atomically

_COLUMNS = [field.name for field in SCHEMA if field.name != "sample_id"]
_PLACE = ("source", "shard", "member")
ANNOTATIONS = ("label", "metadata")
"""Columns that are recorded on request."""
_PARTITION = 1 << 20
"""Rows of a partition in the search for renamed files."""


@dataclass
class Changes:
    """What a build changed against the previous manifest, in rows.

    Attributes:
        new: Files with a new id.
        changed: Files of the same name with other bytes; they keep their ids.
        vanished: Files of the previous manifest that are gone; their ids are not used again.
        renamed: Files that were found under another name by their bytes; they keep their ids.
        unchanged: Files with the same name and bytes.
        missing: Files that had vanished before.
        statuses: Number of rows by status.
        annotated: Number of files with a label, and with metadata, by column.
    """

    new: int = 0
    changed: int = 0
    vanished: int = 0
    renamed: int = 0
    unchanged: int = 0
    missing: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    annotated: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the manifest."""
        return sum(self.statuses.values())


def merge(parts: list[Path], out: Path, described: dict[str, Any]) -> Changes:
    """Write a manifest from parts in the order of their rows, and keep the ids of the previous one.

    An id is that of the row with the same source, shard and member; else that of a vanished row with the same SHA-256,
    if this SHA-256 occurs once among the vanished rows and once among the new ones; else it is new.

    Args:
        parts: Files of parts.
        out: The manifest, which is replaced if its content changes.
        described: Options and sources of the build, for the description in the file.

    Raises:
        DataError: If the previous manifest or a part is damaged.
        OSError: If the file cannot be written.
    """
    previous = out if out.exists() else None
    next_id = _next_id(previous)
    changes, written = Changes(), out.with_name(f".{out.name}.new")
    with ExitStack() as stack:
        renames = _Renames(stack, out.parent)
        if previous is not None:
            for joined in _joined(parts, previous):
                renames.add(joined)
            renames.find()

        def write(file: BinaryIO) -> None:
            _write(file, _joined(parts, previous), renames, next_id, changes, {"version": VERSION} | described)

        write_atomically(written, write)
    if previous is not None and sha256_of(written) == sha256_of(previous):
        written.unlink()
    else:
        os.replace(written, out)
    return changes


def _next_id(previous: Path | None) -> int:
    """One more than the largest id that was ever used."""
    if previous is None:
        return 0
    top = int(description_of(previous).get("next_id", 0))
    for table in batches_of(previous, ["sample_id"]):
        top = max(top, int(pc.max(table["sample_id"]).as_py() or 0) + 1)
    return top


@dataclass(eq=False)
class _Batch:
    """Rows of a manifest in their order.

    Attributes:
        rows: All columns but the id.
        ids: Id of each row; -1 for one that is not in the previous manifest under this name.
        gone: Rows of the previous manifest that no part has.
        gone_before: Those among them that had vanished before.
        changed: Rows with other bytes than before.
    """

    rows: pa.Table
    ids: np.ndarray
    gone: np.ndarray
    gone_before: np.ndarray
    changed: np.ndarray


def _joined(parts: list[Path], previous: Path | None) -> Iterator[_Batch]:
    old = None if previous is None else _Previous(previous)
    for part in parts:
        for table in _part(part):
            if not len(table):
                continue
            if old is None:
                none = np.zeros(len(table), dtype=bool)
                yield _Batch(table, np.full(len(table), -1), none, none, none)
            else:
                yield _join(table, old.until(_key(table, len(table) - 1)))
    for table in old.rest() if old is not None else ():
        yield _join(table.slice(0, 0).drop_columns("sample_id"), table)


def _part(path: Path) -> Iterator[pa.Table]:
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(BATCH, columns=_COLUMNS):
                table = pa.Table.from_batches([batch])
                yield pa.table({name: _plain(table[name]) for name in _COLUMNS})
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"found {path}, which is no whole part ({error}); remove it and build again") from error


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _key(table: pa.Table, row: int) -> tuple[bytes, ...]:
    return tuple(as_bytes(table[name][row].as_py()) for name in _PLACE)


def _keys(table: pa.Table) -> list[tuple[bytes, ...]]:
    columns = [[as_bytes(text) for text in table[name].to_pylist()] for name in _PLACE]
    return list(zip(*columns, strict=True))


class _Previous:
    """The rows of the previous manifest, taken from its start in their order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches = batches_of(path)
        self._waiting: deque[pa.Table] = deque()
        self._last: tuple[bytes, ...] = ()

    def until(self, key: tuple[bytes, ...]) -> pa.Table:
        """The rows up to a key, inclusive, that were not taken before."""
        taken = []
        while (table := self._next()) is not None:
            if _key(table, len(table) - 1) <= key:
                taken.append(table)
                continue
            count = self._count(table, key)
            taken.append(table.slice(0, count))
            self._waiting.appendleft(table.slice(count))
            break
        taken = [table for table in taken if len(table)]
        return pa.concat_tables(taken).combine_chunks() if taken else SCHEMA_PLAIN.empty_table()

    def rest(self) -> Iterator[pa.Table]:
        """All rows that were not taken before."""
        while (table := self._next()) is not None:
            yield table

    def _next(self) -> pa.Table | None:
        if self._waiting:
            return self._waiting.popleft()
        for table in self._batches:
            if len(table):
                self._check_order(table)
                return table
        return None

    def _check_order(self, table: pa.Table) -> None:
        first, last = _key(table, 0), _key(table, len(table) - 1)
        if not self._last <= first <= last:
            raise DataError(
                f"found {self._path} in another order than by source, shard and member; expected a manifest of "
                "`data build`, with ids to keep: move it away, or give another --out"
            )
        self._last = last

    @staticmethod
    def _count(table: pa.Table, key: tuple[bytes, ...]) -> int:
        """Number of rows up to a key, by bisection."""
        low, high = 0, len(table)
        while low < high:
            middle = (low + high) // 2
            if _key(table, middle) <= key:
                low = middle + 1
            else:
                high = middle
        return low


SCHEMA_PLAIN = pa.schema(
    [pa.field(each.name, each.type.value_type if pa.types.is_dictionary(each.type) else each.type) for each in SCHEMA]
)


def _join(new: pa.Table, old: pa.Table) -> _Batch:
    old_ids = old["sample_id"].to_numpy()
    if len(new) == len(old) and all(new[name].equals(old[name]) for name in _PLACE):
        places = np.arange(len(old))
    else:
        places = _places(new, old)
    found = places >= 0
    ids = np.where(found, old_ids[places] if len(old) else -1, -1)
    changed = np.zeros(len(new), dtype=bool)
    changed[found] = ~_equal_digests(new, old, found, places)
    left = np.ones(len(old), dtype=bool)
    left[places[found]] = False
    if not left.any():
        none = np.zeros(len(new), dtype=bool)
        return _Batch(new, ids, none, none, changed)
    return _with_gone(new, ids, changed, old.filter(pa.array(left)))


def _places(new: pa.Table, old: pa.Table) -> np.ndarray:
    """The row of the previous manifest with the name of each new row, or -1; equal names are paired in their order."""
    rows: dict[tuple[bytes, ...], deque[int]] = {}
    for place, key in enumerate(_keys(old)):
        rows.setdefault(key, deque()).append(place)
    places = [same.popleft() if (same := rows.get(key)) else -1 for key in _keys(new)]
    return np.array(places, dtype=np.int64)


def _equal_digests(new: pa.Table, old: pa.Table, found: np.ndarray, places: np.ndarray) -> np.ndarray:
    one = new["sha256"].filter(pa.array(found))
    other = old["sha256"].take(pa.array(places[found]))
    return pc.fill_null(pc.equal(one, other), False).to_numpy(zero_copy_only=False)


def _with_gone(new: pa.Table, ids: np.ndarray, changed: np.ndarray, gone: pa.Table) -> _Batch:
    """The new rows and those that are gone, sorted."""
    before = pc.equal(gone["status"], MISSING).to_numpy(zero_copy_only=False)
    marked = gone.set_column(gone.column_names.index("status"), "status", pa.array([MISSING] * len(gone), pa.string()))
    rows = pa.concat_tables([new, marked.drop_columns("sample_id").select(new.column_names)]).combine_chunks()
    keys = _keys(rows)
    order = np.array(sorted(range(len(rows)), key=keys.__getitem__), dtype=np.int64)
    none = np.zeros(len(new), dtype=bool)
    return _Batch(
        rows.take(pa.array(order)),
        np.concatenate([ids, gone["sample_id"].to_numpy()])[order],
        np.concatenate([none, np.ones(len(gone), dtype=bool)])[order],
        np.concatenate([none, before])[order],
        np.concatenate([changed, np.zeros(len(gone), dtype=bool)])[order],
    )


class _Renames:
    """The search for files that are gone under one name and new under another, by SHA-256, in temporary files.

    Args:
        stack: Closes the files.
        folder: Of the files.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        files = [tempfile.TemporaryFile(dir=folder) for _ in range(5)]  # noqa: SIM115  # closed by the stack
        self._new, self._gone, self._gone_ids, self._ids, self._dropped = map(stack.enter_context, files)
        self.folder = str(folder)
        self._is_searched = False

    def add(self, batch: _Batch) -> None:
        """Note the rows of a batch that are new or gone."""
        digests = digests_of(batch.rows["sha256"])
        self._new.write(digests[batch.ids < 0].tobytes())
        self._gone.write(digests[batch.gone].tobytes())
        self._gone_ids.write(batch.ids[batch.gone].astype("<i8").tobytes())

    def find(self) -> None:
        """Pair new rows with rows that are gone."""
        self._is_searched = True
        new, gone = (_mapped(file, "S32") for file in (self._new, self._gone))
        gone_ids = _mapped(self._gone_ids, "<i8")
        ids, dropped = np.full(len(new), -1, dtype="<i8"), np.zeros(len(gone), dtype=bool)
        if len(new) and len(gone):
            count = 1 + max(len(new), len(gone)) // _PARTITION
            for number in range(count):
                rows, others = _of_partition(new, number, count), _of_partition(gone, number, count)
                places = _pairs(new[rows], gone[others])
                ids[rows[places[0]]] = gone_ids[others[places[1]]]
                dropped[others[places[1]]] = True
        for file, values in ((self._ids, ids), (self._dropped, dropped)):
            file.write(values.tobytes())
            file.seek(0)

    def next_ids(self, count: int) -> np.ndarray:
        """Ids of the next new rows; -1 for rows that are in no earlier manifest."""
        if not self._is_searched:
            return np.full(count, -1)
        return np.frombuffer(self._ids.read(8 * count), dtype="<i8")

    def next_dropped(self, count: int) -> np.ndarray:
        """Which of the next rows that are gone were found under another name."""
        return np.frombuffer(self._dropped.read(count), dtype=bool)


def _mapped(file: BinaryIO, kind: str) -> np.ndarray:
    file.flush()
    size = file.tell()
    return np.memmap(file, np.dtype(kind), mode="r") if size else np.zeros(0, np.dtype(kind))


def _of_partition(digests: np.ndarray, number: int, count: int) -> np.ndarray:
    """Rows of one of several partitions, by the first bytes of SHA-256; a file without one is in none."""
    found = []
    for start in range(0, len(digests), _PARTITION):
        firsts = np.ascontiguousarray(digests[start : start + _PARTITION]).view("<u4").reshape(-1, 8)
        found.append(start + np.flatnonzero((firsts[:, 0] % count == number) & firsts.any(axis=1)))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _pairs(new: np.ndarray, gone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of values that occur once on both sides."""
    sides = []
    for values in (new, gone):
        found, first, counts = np.unique(values, return_index=True, return_counts=True)
        sides.append((found[counts == 1], first[counts == 1]))
    (one, ones), (other, others) = sides
    _, places, other_places = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    return ones[places], others[other_places]


def _write(
    file: BinaryIO,
    batches: Iterator[_Batch],
    renames: _Renames,
    next_id: int,
    changes: Changes,
    described: dict[str, Any],
) -> None:
    with (
        closing(RowsFingerprint(renames.folder)) as fingerprint,
        parquet.ParquetWriter(file, SCHEMA, **write_options(SCHEMA)) as writer,
    ):
        groups = _Groups(writer)
        for batch in batches:
            rows, ids = batch.rows, batch.ids.copy()
            new = np.flatnonzero(ids < 0)
            known = renames.next_ids(len(new))
            fresh = new[known < 0]
            ids[new] = known
            ids[fresh] = np.arange(next_id, next_id + len(fresh))
            next_id += len(fresh)
            dropped = np.zeros(len(ids), dtype=bool)
            if batch.gone.any():
                dropped[batch.gone] = renames.next_dropped(int(batch.gone.sum()))
            _count(changes, batch, len(fresh), len(new) - len(fresh), dropped)
            if dropped.any():
                rows, ids = rows.filter(pa.array(~dropped)), ids[~dropped]
            usable = pc.equal(rows["status"], OK).to_numpy(zero_copy_only=False)
            fingerprint.add(ids[usable], digests_of(rows["sha256"])[usable])
            groups.add(rows.add_column(0, "sample_id", pa.array(ids, pa.int64())))
        groups.flush()
        described |= {"fingerprint": fingerprint.hexdigest(), "next_id": next_id}
        described["columns"] = groups.digests.hexdigests()
        writer.add_key_value_metadata({KEY: json.dumps(described, sort_keys=True).encode()})


def _count(changes: Changes, batch: _Batch, new: int, renamed: int, dropped: np.ndarray) -> None:
    there = ~batch.gone
    changes.new += new
    changes.renamed += renamed
    changes.changed += int((batch.changed & there).sum())
    changes.unchanged += int(((batch.ids >= 0) & there & ~batch.changed).sum())
    changes.missing += int((batch.gone_before & ~dropped).sum())
    changes.vanished += int((batch.gone & ~batch.gone_before & ~dropped).sum())
    for name in ANNOTATIONS:
        column = batch.rows.filter(pa.array(there))[name]
        changes.annotated[name] = changes.annotated.get(name, 0) + len(column) - column.null_count
    for counted in pc.value_counts(batch.rows.filter(pa.array(~dropped))["status"]).to_pylist():
        status = counted["values"]
        changes.statuses[status] = changes.statuses.get(status, 0) + counted["counts"]


class _Groups:
    """Row groups of equal length, whatever the lengths of the parts."""

    def __init__(self, writer: parquet.ParquetWriter) -> None:
        self._writer, self._tables, self._rows = writer, [], 0
        self.digests = ColumnDigests(SCHEMA.names)

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        self._rows += len(table)
        while self._rows >= BATCH:
            table = pa.concat_tables(self._tables).combine_chunks()
            self._write(table.slice(0, BATCH))
            self._tables, self._rows = [table.slice(BATCH)], len(table) - BATCH

    def flush(self) -> None:
        if self._rows:
            self._write(pa.concat_tables(self._tables).combine_chunks())
        self._tables, self._rows = [], 0

    def _write(self, table: pa.Table) -> None:
        self.digests.add(table)
        self._writer.write_table(table_of({name: table[name] for name in SCHEMA.names}, SCHEMA), BATCH)
