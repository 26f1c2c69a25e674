"""Groups of images that are the same: equal bytes, near-equal pixels, or near-equal features; one of each is kept.

Near-equal pixels are found in two steps. Perceptual hashes (`hashing`) that differ in few bits give candidates, cheaply
and for any number of images. Images of little texture have such hashes by chance, so thumbnails of the candidates are
compared as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ssl_lightning.errors import UsageError

MOST_BITS = 7
"""Largest distance of hashes that is found exactly: one of four parts of 16 bits then differs in one bit at most."""
BITS, DIFFERENCE = 4, 6.0
"""Defaults: bits in which hashes differ, and root mean square difference of thumbnails in gray levels of 255."""
SIDE = 16
"""Side of a thumbnail in pixels."""
_COMPARED_DIRECTLY = 20_000
"""Up to this number, all hashes are compared; the index is exact too, and faster for more."""
_LEADERS_AT_ONCE = 4096
Keep = Literal["largest", "first", "quality"]
Pairs = Int64[np.ndarray, "P 2"]
Thumbnails = Callable[[Int64[np.ndarray, "n"]], UInt8[np.ndarray, "n values"]]
"""Reads the thumbnails of some rows, as one row of values each."""


def equal_pairs(values: Shaped[np.ndarray, "N"]) -> Pairs:
    """Each row with the first row of the same value, such as SHA-256.

    Args:
        values: One value per row.
    """
    _, first, group = np.unique(values, return_index=True, return_inverse=True)
    rows = np.arange(len(values))
    pairs = np.stack([first[group], rows], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def hash_pairs(hashes: UInt64[np.ndarray, "U"], bits: int) -> Pairs:
    """Pairs of different hashes that differ in few bits.

    Args:
        hashes: Distinct values.
        bits: Largest number of bits, at most `MOST_BITS`.

    Raises:
        UsageError: For another number of bits.
    """
    if not 0 <= bits <= MOST_BITS:
        raise UsageError(f"found {bits} bits between perceptual hashes; expected 0 to {MOST_BITS}")
    if not len(hashes) or not bits:
        return np.zeros((0, 2), dtype=np.int64)
    codes = np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)
    if len(hashes) <= _COMPARED_DIRECTLY:
        index = faiss.IndexBinaryFlat(64)
    else:
        index = faiss.IndexBinaryMultiHash(64, 4, 16)
        index.nflip = 1
    index.add(codes)  # type: ignore[call-arg]  # faiss takes arrays in Python
    ends, _, others = index.range_search(codes, bits + 1)  # type: ignore[call-arg]  # below this distance
    rows = np.repeat(np.arange(len(hashes)), np.diff(ends.astype(np.int64)))
    pairs = np.stack([rows, others], axis=1)
    return pairs[pairs[:, 0] < pairs[:, 1]]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows with a hash that is equal or close to that of another row.

    Attributes:
        rows: Sorted by their hashes, rows of one hash ascending.
        group: Number of the hash of each of them.
        close: Pairs of numbers of different hashes that are close.
    """

    rows: Int64[np.ndarray, "n"]
    group: Int64[np.ndarray, "n"]
    close: Pairs


def candidates(hashes: UInt64[np.ndarray, "N"], bits: int = BITS) -> Candidates:
    """The rows that `compared` compares.

    Args:
        hashes: Perceptual hash of each row.
        bits: Largest number of bits in which hashes differ.
    """
    distinct, group = np.unique(hashes, return_inverse=True)
    close = hash_pairs(distinct, bits)
    sizes = np.bincount(group, minlength=len(distinct))
    is_candidate = sizes > 1
    is_candidate[close.flatten()] = True
    rows = np.flatnonzero(is_candidate[group])
    rows = rows[np.argsort(group[rows], kind="stable")]
    return Candidates(rows, group[rows], close)


def compared(found: Candidates, thumbnails: Thumbnails, difference: float = DIFFERENCE) -> Pairs:
    """Pairs of candidates with near-equal thumbnails, enough of them to connect each group.

    Of images with one hash, each is compared with the first of every distinct thumbnail, so that thousands of blank
    images take no square of their number.

    Args:
        found: Of `candidates`.
        thumbnails: Reads thumbnails.
        difference: Largest root mean square difference of thumbnails.
    """
    rows = found.rows
    if not len(rows):
        return np.zeros((0, 2), dtype=np.int64)
    values = thumbnails(rows)
    starts = np.flatnonzero(np.r_[True, np.diff(found.group) > 0]).tolist()
    leaders: dict[int, np.ndarray] = {}
    pairs = []
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        leaders[int(found.group[start])], near = _led(values, start, end, difference)
        pairs += near
    for one, other in found.close:
        mine, others = leaders[int(one)], leaders[int(other)]
        near = differences(values[mine], values[others]) <= difference
        pairs += [(mine[a], others[b]) for a, b in np.argwhere(near)]
    places = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return rows[places]


def near_pairs(
    hashes: UInt64[np.ndarray, "N"], thumbnails: Thumbnails, bits: int = BITS, difference: float = DIFFERENCE
) -> Pairs:
    """Pairs of images with near-equal hashes and thumbnails, see `candidates` and `compared`.

    Args:
        hashes: Perceptual hash of each row.
        thumbnails: Reads thumbnails; called for candidates alone.
        bits: Largest number of bits in which hashes differ.
        difference: Largest root mean square difference of thumbnails.
    """
    return compared(candidates(hashes, bits), thumbnails, difference)


def _led(
    values: UInt8[np.ndarray, "n values"], start: int, end: int, difference: float
) -> tuple[Int64[np.ndarray, "L"], list[tuple[int, int]]]:
    """The first place of each distinct thumbnail, and each other place with the first one that is near."""
    leaders, pairs = [start], []
    for place in range(start + 1, end):
        near = differences(values[place : place + 1], values[leaders[:_LEADERS_AT_ONCE]])[0] <= difference
        if near.any():
            pairs.append((leaders[int(near.argmax())], place))
        else:
            leaders.append(place)
    return np.array(leaders), pairs


def differences(one: UInt8[np.ndarray, "n values"], other: UInt8[np.ndarray, "m values"]) -> Float32[np.ndarray, "n m"]:
    """Root mean square difference of each pair of thumbnails, in gray levels."""
    first, second = one.astype(np.float32), other.astype(np.float32)
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.sqrt(squares.clip(min=0) / one.shape[1])


def feature_pairs(features: Float32[np.ndarray, "N D"], similarity: float, most: int = 64) -> Pairs:
    """Pairs of rows with a cosine similarity of at least a threshold, among the nearest rows of each.

    Args:
        features: Unit rows.
        similarity: The threshold.
        most: Nearest rows of each row that are considered.

    Raises:
        UsageError: For a threshold outside of 0 to 1.
    """
    if not 0 < similarity <= 1:
        raise UsageError(f"found a similarity of {similarity}; expected a cosine above 0 and at most 1, such as 0.95")
    if len(features) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features)  # type: ignore[call-arg]
    found, others = index.search(features, min(most, len(features)))  # type: ignore[call-arg]
    rows, columns = np.nonzero(found >= similarity)
    pairs = np.sort(np.stack([rows, others[rows, columns]], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def mirrored(hashes: UInt64[np.ndarray, "N"]) -> UInt64[np.ndarray, "N"]:
    """The hashes of the images flipped from left to right, but for bits of equal neighboring values.

    A bit compares two neighboring values of a row. In the flipped image the values are in reverse order, so that the
    bits of each row are reversed and inverted.
    """
    rows = np.ascontiguousarray(hashes).view(np.uint8)
    flipped = np.packbits(1 - np.unpackbits(rows.reshape(-1, 1), axis=1)[:, ::-1], axis=1)
    return np.ascontiguousarray(flipped.reshape(-1)).view(np.uint64)


def components(count: int, pairs: Pairs) -> Int64[np.ndarray, "N"]:
    """The group of each row: rows that pairs connect, directly or through others, are in one group.

    Args:
        count: Number of rows.
        pairs: Connected rows.
    """
    edges = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def kept_rows(
    groups: Int64[np.ndarray, "N"], pixels: Int64[np.ndarray, "N"], size: Int64[np.ndarray, "N"], keep: Keep
) -> Bool[np.ndarray, "N"]:
    """One row of each group.

    - "largest": most pixels; among equal ones, most bytes, then the first;
    - "quality": most bytes per pixel, the least compressed; then most pixels, then the first;
    - "first": the first.

    Args:
        groups: Group of each row, rows in the order of their ids.
        pixels: Width times height.
        size: Bytes of the file.
        keep: The rule.
    """
    rows = np.arange(len(groups))
    rules = {
        "largest": (-pixels, -size),
        "quality": (-(size / np.maximum(pixels, 1)), -pixels),
        "first": (rows, rows),
    }
    first, second = rules[keep]
    order = np.lexsort((rows, second, first, groups))
    kept = np.zeros(len(groups), dtype=bool)
    kept[order[np.flatnonzero(np.r_[True, np.diff(groups[order]) > 0])]] = True
    return kept
