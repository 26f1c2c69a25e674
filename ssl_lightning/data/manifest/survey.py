"""Survey: what a manifest has of a collection, as plain counts and columns for a report."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from ssl_lightning.data.hashing import MISSING, OK, QUARANTINED
from ssl_lightning.data.manifest.schema import batches_of

_NUMBERS = ("sample_id", "width", "height", "size")
_WORDS = ("format", "mode", "orientation")
_COLUMNS = (*_NUMBERS, *_WORDS, "source", "shard", "member", "offset", "status", "label")
UNKNOWN = "unknown"
"""The format or mode of a file without a header."""


@dataclass(frozen=True)
class BrokenFile:
    """A file that is quarantined.

    Attributes:
        source: Of its row, as text.
        shard: Of its row, as text; empty for a file of its own.
        member: Of its row, as text.
        offset: Position in the shard; -1 for a file of its own.
        size: In bytes.
        reason: Why it is quarantined.
        header: Format, mode, width and height as text; empty if unknown.
    """

    source: str
    shard: str
    member: str
    offset: int
    size: int
    reason: str
    header: str

    @property
    def path(self) -> str:
        """Source, shard and member."""
        return os.path.join(self.source, self.shard, self.member)


@dataclass(eq=False)
class Survey:
    """Counts of all rows of a manifest, and columns of the usable ones in the order of their ids.

    Attributes:
        rows: Number of rows.
        statuses: Number of rows by status.
        places: Number and bytes of all rows, and number of usable ones, by source and shard.
        broken: Quarantined files, at most `most` of each reason.
        formats: Number of usable rows by format.
        modes: Number of usable rows by mode.
        orientations: Number of usable rows by Exif orientation.
        ids: Of the usable rows.
        widths: In pixels as stored.
        heights: In pixels as stored.
        sizes: In bytes.
        names: Member of each usable row, as text.
        labels: Label of each usable row; empty for none.
    """

    rows: int
    statuses: Counter[str]
    places: dict[tuple[str, str], tuple[int, int, int]]
    broken: list[BrokenFile]
    formats: Counter[str]
    modes: Counter[str]
    orientations: Counter[int]
    ids: Int64[np.ndarray, "N"]
    widths: Int64[np.ndarray, "N"]
    heights: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]
    names: list[str]
    labels: list[str] = field(default_factory=list)

    @property
    def quarantined(self) -> dict[str, int]:
        """Number of quarantined rows by reason, the most frequent first."""
        return {
            status.removeprefix(QUARANTINED): count
            for status, count in self.statuses.most_common()
            if status not in (OK, MISSING)
        }


def survey(manifest: Path, kept: Int64[np.ndarray, "K"] | None = None, most: int = 24) -> Survey:
    """Read a manifest once.

    Args:
        manifest: The file, or a folder of them.
        kept: Ids to which the usable rows are restricted, ascending; None for all.
        most: Quarantined files of each reason that are listed.

    Raises:
        DataError: If the manifest is damaged.
    """
    found = _Reading(most)
    for table in batches_of(manifest, _COLUMNS):
        columns = {name: table[name].to_pylist() for name in _COLUMNS}
        found.add(columns, None if kept is None else np.isin(columns["sample_id"], kept))
    return found.finish()


class _Reading:
    """What has been read so far."""

    def __init__(self, most: int) -> None:
        self.most, self.rows = most, 0
        self.statuses: Counter[str] = Counter()
        self.places: dict[tuple[str, str], tuple[int, int, int]] = {}
        self.broken: list[BrokenFile] = []
        self.listed: Counter[str] = Counter()
        self.words: dict[str, Counter] = {name: Counter() for name in _WORDS}
        self.numbers: dict[str, list[np.ndarray]] = {name: [] for name in _NUMBERS}
        self.names: list[str] = []
        self.labels: list[str] = []

    def add(self, columns: dict[str, list], kept: Bool[np.ndarray, "n"] | None) -> None:
        """Add a batch."""
        self.rows += len(columns["status"])
        self.statuses.update(columns["status"])
        described = zip(*(columns[name] for name in ("source", "shard", "size", "status")), strict=True)
        for source, shard, size, status in described:
            count, total, usable = self.places.get((source, shard), (0, 0, 0))
            self.places[source, shard] = (count + 1, total + size, usable + (status == OK))
        self._list_broken(columns)
        usable = np.array([status == OK for status in columns["status"]], dtype=bool)
        rows = np.flatnonzero(usable if kept is None else usable & kept).tolist()
        for name, counter in self.words.items():
            counter.update(columns[name][row] or UNKNOWN for row in rows)
        for name, parts in self.numbers.items():
            parts.append(np.array([columns[name][row] or 0 for row in rows], dtype=np.int64))
        self.names += [columns["member"][row] for row in rows]
        self.labels += [columns["label"][row] or "" for row in rows]

    def _list_broken(self, columns: dict[str, list]) -> None:
        for row, status in enumerate(columns["status"]):
            if status in (OK, MISSING) or self.listed[status] >= self.most:
                continue
            self.listed[status] += 1
            kind, mode, width, height = (columns[name][row] for name in ("format", "mode", "width", "height"))
            header = f"{kind}, {mode}, {width:,} x {height:,}" if kind and width and height else ""
            self.broken.append(
                BrokenFile(
                    source=columns["source"][row],
                    shard=columns["shard"][row],
                    member=columns["member"][row],
                    offset=columns["offset"][row],
                    size=columns["size"][row],
                    reason=status.removeprefix(QUARANTINED),
                    header=header,
                )
            )

    def finish(self) -> Survey:
        """All of it, with the usable rows in the order of their ids."""
        numbers = {name: np.concatenate([np.zeros(0, dtype=np.int64), *parts]) for name, parts in self.numbers.items()}
        order = np.argsort(numbers["sample_id"], kind="stable")
        ids, widths, heights, sizes = (numbers[name][order] for name in _NUMBERS)
        in_order = order.tolist()
        return Survey(
            rows=self.rows,
            statuses=self.statuses,
            places=self.places,
            broken=self.broken,
            formats=self.words["format"],
            modes=self.words["mode"],
            orientations=self.words["orientation"],
            ids=ids,
            widths=widths,
            heights=heights,
            sizes=sizes,
            names=[self.names[row] for row in in_order],
            labels=[self.labels[row] for row in in_order],
        )
