"""Fingerprints of datasets: hashes of the images, their order and their content.

A fingerprint that starts with `v2:` covers names, sizes and content. Fingerprints of files from earlier versions lack
this prefix and cover names and sizes only.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable

import numpy as np

log = logging.getLogger(__name__)
BY_CONTENT = "v2:"
READ_WHOLE = 512_000_000
"""Collections up to this number of bytes are hashed completely."""
_SAMPLED, _END = 256, 4096


def digest(*blocks: bytes) -> str:
    """Hexadecimal SHA-256 of blocks, each with its length."""
    state = hashlib.sha256()
    for block in blocks:
        state.update(len(block).to_bytes(8, "little"))
        state.update(block)
    return state.hexdigest()


def combined(parts: Iterable[str], *blocks: bytes) -> str:
    """The fingerprint of a combination of datasets; it covers content if all of theirs do."""
    parts = list(parts)
    version = BY_CONTENT if any(part.startswith(BY_CONTENT) for part in parts) else ""
    return version + digest(*(part.encode() for part in parts), *blocks)


def of_files(by_names: str, sizes: np.ndarray, read: Callable[[int], bytes], read_whole: int = READ_WHOLE) -> str:
    """The fingerprint of files by names, sizes and content.

    Args:
        by_names: The hash of names and sizes.
        sizes: Sizes in bytes.
        read: Returns the content of a file by its row.
        read_whole: Collections up to this number of bytes are read completely. Of a larger one, 256 evenly spaced files
            are read, their first and last 4 KiB; a change elsewhere that keeps names and sizes is not detected.
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
        return b"cannot be read"  # equal for all unreadable files


def in_the_form_of(other: str | None, fingerprint: str, by_names: str) -> str:
    """The fingerprint of the current data in the form of another fingerprint.

    Args:
        other: A fingerprint from a file; it may be of the earlier form.
        fingerprint: Fingerprint of the current data.
        by_names: Fingerprint of their names and sizes only.

    Returns:
        `by_names` if `other` equals it, which is logged; else `fingerprint`.
    """
    if other is not None and other == by_names != fingerprint:
        log.info("the data have the same names and sizes; their content was not compared, for the older file lacks it")
        return by_names
    return fingerprint
