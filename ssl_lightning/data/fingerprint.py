"""Fingerprints of data: which images there are, in which order, and what they hold.

A fingerprint that begins with `v2:` is of names, sizes and content. Those of files are without it in checkpoints and
stage files written before content was read: of names and sizes alone.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable

import numpy as np

log = logging.getLogger(__name__)
BY_CONTENT = "v2:"
READ_WHOLE = 512_000_000
"""Bytes of a collection up to which all are read."""
_SAMPLED, _END = 256, 4096


def digest(*blocks: bytes) -> str:
    """Hexadecimal SHA-256 of blocks, each with its length."""
    state = hashlib.sha256()
    for block in blocks:
        state.update(len(block).to_bytes(8, "little"))
        state.update(block)
    return state.hexdigest()


def combined(parts: Iterable[str], *blocks: bytes) -> str:
    """The fingerprint of something made of others, by content if theirs are."""
    parts = list(parts)
    version = BY_CONTENT if any(part.startswith(BY_CONTENT) for part in parts) else ""
    return version + digest(*(part.encode() for part in parts), *blocks)


def of_files(by_names: str, sizes: np.ndarray, read: Callable[[int], bytes], read_whole: int = READ_WHOLE) -> str:
    """The fingerprint of files by names, sizes and content.

    Args:
        by_names: That of their names and sizes.
        sizes: In bytes.
        read: Gives the content of a file by its row.
        read_whole: Bytes of all files up to which all are read. Of a larger collection 256 files, evenly spaced, count
            with their first and last 4 KiB: a change elsewhere that keeps names and sizes is not noticed.
    """
    everything = int(sizes.sum()) <= read_whole
    rows = range(len(sizes)) if everything else np.linspace(0, len(sizes) - 1, _SAMPLED).astype(int).tolist()
    state = hashlib.sha256(by_names.encode())
    for row in rows:
        content = _content(read, row)
        content = content if everything else content[:_END] + content[-_END:]
        state.update(len(content).to_bytes(8, "little"))
        state.update(content)
    return BY_CONTENT + state.hexdigest()


def _content(read: Callable[[int], bytes], row: int) -> bytes:
    try:
        return read(row)
    except OSError:
        return b"cannot be read"  # an image like any other that cannot


def in_the_form_of(other: str | None, fingerprint: str, by_names: str) -> str:
    """The fingerprint to compare with another one.

    Args:
        other: From a file; it may be from before content was read.
        fingerprint: Of the data at hand.
        by_names: Of their names and sizes alone.

    Returns:
        `by_names` if that is what `other` is, with a line in the log; else `fingerprint`.
    """
    if other is not None and other == by_names != fingerprint:
        log.info("the data have the same names and sizes; their content was not compared, for the older file lacks it")
        return by_names
    return fingerprint
