"""Sentences about the files of a source: pages that are left out, and gray values that lose their levels."""

import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssl_lightning.data.decode import decode, is_deep, is_deep_color
from ssl_lightning.data.limits import Unreadable
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.sources.byte_table import ByteTable

_PAGED = (".tif", ".tiff", ".gif", ".webp")
_MOST_FILES, _MOST_BYTES = 256, 100_000_000
"""Files in which pages are counted: all if they are few and small, else some that are evenly spaced."""
_DEEP_FILES, _FEWEST_LEVELS = 16, 64


def notes_of(table: ByteTable, options: SourceOptions) -> list[str]:
    """One sentence each if pages are left out and if deep images come out with few levels.

    Args:
        table: The files.
        options: How they are decoded.
    """
    return [note for note in (_of_pages(table, options), _of_levels(table, options)) if note]


def pages(data: bytes, most: int) -> int:
    """Number of pages or frames of a TIFF, GIF or WebP file; 1 for other formats.

    Args:
        data: The whole file.
        most: Largest number that is counted.
    """
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0"):
        return _tiff_pages(data, most)
    if data[:4] == b"GIF8":
        return _gif_frames(data, most)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_frames(data, most)
    return 1


def _of_pages(table: ByteTable, options: SourceOptions) -> str:
    rows = np.array([row for row, name in enumerate(table.names) if name.lower().endswith(_PAGED)], dtype=np.int64)
    if not len(rows):
        return ""
    chosen = rows
    if len(rows) > _MOST_FILES or int(table.sizes[rows].sum()) > _MOST_BYTES:
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_FILES)).astype(int)]
    counts = {row: pages(_read(table, row), options.limits.max_chunks) for row in chosen.tolist()}
    several = [row for row, count in counts.items() if count > 1]
    if not several:
        return ""
    left = sum(counts[row] - 1 for row in several)
    some = "" if len(chosen) == len(rows) else f" of {len(chosen)} examined"
    return (
        f"{len(several)} files{some} have several pages or frames ({table.name(several[0])}): the first is read, "
        f"{left} are left out"
    )


def _of_levels(table: ByteTable, options: SourceOptions) -> str:
    if not len(table):
        return ""
    rows = np.unique(np.linspace(0, len(table) - 1, _DEEP_FILES).astype(int)).tolist()
    sampled = [_read(table, row) for row in rows]
    deep = [data for data in sampled if is_deep(data, options.limits)]
    if not deep:
        color = _of_color([data for data in sampled if is_deep_color(data, options.limits)], options)
        unused = f"data.intensity_window has no effect: no gray image of more than 8 bits in {len(rows)} files examined"
        return "; ".join(filter(None, (color, unused if options.window is not None else "")))
    levels = _levels(deep, options)
    if not levels or len(levels) >= _FEWEST_LEVELS:
        return ""
    advice = "give their range as data.intensity_window"
    if options.window is not None:
        advice = f"narrow data.intensity_window={options.window} to their range"
    stretched = _levels(deep, replace(options, window="minmax"))
    if len(stretched) <= len(levels):  # such as masks of two values
        return ""
    return (
        f"gray images of more than 8 bits come out with {len(levels)} of 256 levels, {min(levels)} to {max(levels)}: "
        f"{advice} [low, high], or percentile"
    )


def _of_color(files: Sequence[bytes], options: SourceOptions) -> str:
    """The sentence about 16-bit color images with values so small that the upper 8 bits differ little."""
    levels = _levels(files, options)
    if max(levels, default=0) == 0 or max(levels) - min(levels) >= _FEWEST_LEVELS:
        return ""
    return (
        f"color images of 16 bits keep their upper 8 bits, {min(levels)} to {max(levels)} of 256 levels: save gray "
        "values as 16-bit gray images, for which there is data.intensity_window, or stretch the colors"
    )


def _levels(files: Sequence[bytes], options: SourceOptions) -> set[int]:
    found: set[int] = set()
    for data in files:
        try:
            found |= set(decode(data, options.limits, options.window)[0].unique().tolist())
        except Unreadable:
            continue
    return found


def _read(table: ByteTable, row: int) -> bytes:
    try:
        return table.read(row)
    except OSError:
        return b""


def _tiff_pages(data: bytes, most: int) -> int:
    """Directories in the chain of a TIFF file."""
    order, big = "<" if data[:2] == b"II" else ">", data[2:3] == b"+"
    head, width, entry, at = ("Q", "Q", 20, 8) if big else ("H", "I", 12, 4)
    seen: set[int] = set()
    try:
        start = struct.unpack_from(order + width, data, at)[0]
        while start and start not in seen and len(seen) < most:
            count = struct.unpack_from(order + head, data, start)[0]
            seen.add(start)
            start = struct.unpack_from(order + width, data, start + struct.calcsize(head) + entry * count)[0]
    except struct.error:
        pass
    return max(1, len(seen))


def _gif_frames(data: bytes, most: int) -> int:
    """Image descriptors of a GIF file."""
    if len(data) < 13:
        return 1
    at, frames = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0), 0
    while at + 10 < len(data) and frames < most:
        kind = data[at : at + 1]
        if kind == b",":
            frames += 1
            at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
        elif kind == b"!":
            at += 2
        else:
            break
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return max(1, frames)


def _webp_frames(data: bytes, most: int) -> int:
    """Animation frames of a WebP file."""
    at, frames = 12, 0
    while at + 8 <= len(data) and frames < most:
        name, size = struct.unpack_from("<4sI", data, at)
        frames += name == b"ANMF"
        at += 8 + size + size % 2
    return max(1, frames)
