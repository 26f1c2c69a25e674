"""The comparison of a manifest with the images that are there: missing, changed, moved and new files."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ssl_lightning.data.hashing import MISSING
from ssl_lightning.data.manifest.places import candidates, check_place, container_of
from ssl_lightning.data.manifest.planned import TimesOfChange
from ssl_lightning.data.manifest.schema import as_bytes, batches_of, description_of, files_of, from_text, pc, to_text
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.container import forget_containers
from ssl_lightning.data.sources.folder import folder_table
from ssl_lightning.data.sources.opening import file_table, sources_at
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.data.sources.tar import is_tar
from ssl_lightning.errors import DataError
from ssl_lightning.progress import progress

KINDS = ("missing", "changed", "moved", "new")
"""Kinds of differences."""
_COLUMNS = ("sample_id", "source", "shard", "member", "offset", "size", "sha256", "status")


class Difference(NamedTuple):
    """A file that differs from the manifest.

    Attributes:
        kind: One of `KINDS`.
        sample_id: Of its row; None for a new file.
        path: Source, shard and member as text.
        found: Where a moved file is; why a changed file counts as one.
    """

    kind: str
    sample_id: int | None
    path: str
    found: str = ""


@dataclass
class Comparison:
    """The result of a check.

    Attributes:
        compared: Rows that were compared; rows that are known to be missing are not.
        differences: Files that differ.
    """

    compared: int = 0
    differences: list[Difference] = field(default_factory=list)

    def of(self, kind: str) -> list[Difference]:
        """The differences of one kind."""
        return [each for each in self.differences if each.kind == kind]


@dataclass(frozen=True, eq=False)
class _Lost:
    """A row without its file."""

    sample_id: int
    path: str
    sha256: bytes | None


@dataclass(frozen=True, eq=False)
class _Extra:
    """A file without a row."""

    path: str
    table: ByteTable
    row: int


def check(manifest: Path, full: bool) -> Comparison:
    """Compare a manifest with its images.

    Names, sizes and positions are compared, and the content of files with another time of change than at the build,
    as far as the parts of the manifest, which hold the times, exist.

    Args:
        manifest: The file, or a folder of them.
        full: Compare the SHA-256 of every file.

    Raises:
        DataError: If the manifest is damaged, or one of its paths leaves its folder.
    """
    forget_containers()
    described = description_of(files_of(manifest)[0])
    selection = _selection(described.get("options"))
    times, result = TimesOfChange(manifest), Comparison()
    lost: list[_Lost] = []
    extra: list[_Extra] = []
    seen: set[tuple[str, str]] = set()
    for source, shard, rows in _groups(manifest):
        seen.add((source, shard))
        check_place(source, shard)
        group = _Group(source, shard, _listed(source, shard, manifest.parent, selection), times.of(source, shard))
        group.compare(rows, full, result, lost, extra)
    extra += _new_shards(described.get("sources") or [], seen, manifest.parent, selection)
    _pair(lost, extra, result)
    return result


def _selection(options: dict | None) -> Selection:
    chosen = (options or {}).get("selection") or {}
    return Selection(tuple(chosen.get("include", ())), tuple(chosen.get("exclude", ())))


def _groups(manifest: Path) -> Iterator[tuple[str, str, Iterator[pa.Table]]]:
    """The rows of each source and shard, which follow each other."""
    batches = (table for table in batches_of(manifest, _COLUMNS) if len(table))
    waiting = [next(batches, None)]

    def of(source: str, shard: str) -> Iterator[pa.Table]:
        while (table := waiting[0]) is not None:
            count = _same_place(table, source, shard)
            if count:
                yield table.slice(0, count)
            waiting[0] = table.slice(count) if count < len(table) else next(batches, None)
            if count < len(table):
                return

    while (table := waiting[0]) is not None:
        source, shard = (table[name][0].as_py() for name in ("source", "shard"))
        rows = of(source, shard)
        yield source, shard, rows
        for _ in rows:
            pass


def _same_place(table: pa.Table, source: str, shard: str) -> int:
    """Number of rows at the start that are of this source and shard."""
    same = pc.and_(pc.equal(table["source"], source), pc.equal(table["shard"], shard))
    different = np.flatnonzero(~same.to_numpy(zero_copy_only=False))
    return int(different[0]) if len(different) else len(table)


def _listed(source: str, shard: str, folder: Path, selection: Selection) -> ByteTable | None:
    """The images of a shard or folder; None if it is missing or damaged."""
    try:
        container = container_of(source, shard, folder)
        return file_table(container, selection) if shard else folder_table(Path(container), "", selection)[0]
    except DataError:
        return None


@dataclass(eq=False)
class _Group:
    """One shard, or the files of one folder."""

    source: str
    shard: str
    table: ByteTable | None
    times: dict[str, int]

    def compare(
        self, batches: Iterator[pa.Table], full: bool, result: Comparison, lost: list[_Lost], extra: list[_Extra]
    ) -> None:
        """Compare the rows of the manifest with the files."""
        rows = {} if self.table is None else {to_text(name): row for row, name in enumerate(self.table.names)}
        for table in batches:
            title = f"comparing {self.shard or self.source}"
            for values in progress(table.to_pylist(), title, "files"):
                if values["status"] == MISSING:
                    continue
                result.compared += 1
                row = rows.pop(values["member"], None)
                path = self._path(values["member"])
                if row is None or self.table is None:
                    lost.append(_Lost(values["sample_id"], path, values["sha256"]))
                elif reason := self._changed(values, self.table, row, full):
                    result.differences.append(Difference("changed", values["sample_id"], path, reason))
        if self.table is not None:
            extra += [_Extra(self._path(member), self.table, row) for member, row in rows.items()]

    def _path(self, member: str) -> str:
        return os.path.join(self.source, self.shard, member)

    def _changed(self, values: dict, table: ByteTable, row: int, full: bool) -> str:
        """Why a file counts as changed; empty for an unchanged one."""
        size, offset = int(table.sizes[row]), int(table.offsets[row])
        if size != values["size"]:
            return f"{size} bytes, {values['size']} in the manifest"
        time = self.times.get(values["member"])
        if full or (time is not None and time != self._time(values["member"])) or offset != values["offset"]:
            found = _digest(table, row)
            return "" if found == values["sha256"] else "other content"
        return ""

    def _time(self, member: str) -> int:
        assert self.table is not None
        container = self.table.containers[0]
        try:
            return os.stat(container if self.shard else os.path.join(container, from_text(member))).st_mtime_ns
        except OSError:
            return -1


def _digest(table: ByteTable, row: int) -> bytes | None:
    try:
        return hashlib.sha256(table.read(row)).digest()
    except OSError:
        return None


def _new_shards(
    sources: list[list[str]], seen: set[tuple[str, str]], folder: Path, selection: Selection
) -> list[_Extra]:
    """The images of shards that the patterns of the build match now, and did not match then."""
    found = []
    for source, pattern in ((each[0], each[1] if len(each) > 1 else "") for each in sources):
        check_place(source, pattern)
        root = next((place for place in candidates(from_text(source), folder) if os.path.isdir(place)), None)
        for shard in [] if root is None else _shards(root, from_text(pattern)):
            if (source, to_text(shard)) not in seen:
                table = _listed(source, to_text(shard), folder, selection)
                path = os.path.join(source, to_text(shard))
                if table is not None:
                    names = enumerate(table.names)
                    found += [_Extra(os.path.join(path, to_text(name)), table, row) for row, name in names]
    return found


def _shards(root: str, pattern: str) -> list[str]:
    if not pattern:
        return [path for path in _below(root) if is_tar(path)]
    try:
        return [os.path.relpath(path, root) for path in sources_at(os.path.join(os.path.abspath(root), pattern))]
    except DataError:  # some of the braces are missing, which their rows show
        return []


def _below(root: str) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        yield from (os.path.relpath(os.path.join(folder, name), root) for name in names)


def _pair(lost: list[_Lost], extra: list[_Extra], result: Comparison) -> None:
    """Find lost files among the extra ones by their content."""
    by_digest: dict[bytes, list[_Lost]] = {}
    for each in lost:
        if each.sha256 is not None:
            by_digest.setdefault(each.sha256, []).append(each)
    found: dict[int, str] = {}
    for file in progress(extra, "reading new files", "files", shown=bool(by_digest)):
        digest = _digest(file.table, file.row) if by_digest else None
        same = by_digest.get(digest or b"")
        if same:
            found[same.pop().sample_id] = file.path
        else:
            result.differences.append(Difference("new", None, file.path))
    for each in lost:
        place = found.get(each.sample_id)
        kind = "missing" if place is None else "moved"
        result.differences.append(Difference(kind, each.sample_id, each.path, place or ""))
    result.differences.sort(key=lambda each: (KINDS.index(each.kind), as_bytes(each.path)))
