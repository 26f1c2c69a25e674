"""The first directory of a TIFF file: the number of strips or tiles, and the cost of decoding one of them."""

import struct

from ssl_lightning.data.limits import Limits, Unreadable

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _ORIENTATION, _SAMPLES = 256, 257, 258, 259, 274, 277
_PHOTOMETRIC = 262
_ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 278, 284, 322, 323
_OFFSETS, _LENGTHS = (273, 324), (279, 325)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_NONE, _JPEGS = 1, (6, 7)
_MOST_SAMPLES = 6
_LONG = frozenset({*_OFFSETS, *_LENGTHS})


def tiff_layout(data: bytes, limits: Limits) -> tuple[int, int]:
    """Memory in bytes for decoding beside the decoder's image and the result, and the largest number of scans.

    Raises:
        Unreadable: With reason truncated or broken, bomb:chunks or bomb:metadata.
    """
    try:
        tags = _tags(data, limits)
    except struct.error as error:
        raise Unreadable("truncated", "ends within its directory") from error
    width, height = (_first(tags, tag, 0) for tag in (_WIDTH, _HEIGHT))
    samples, bits = _first(tags, _SAMPLES, 1), max(tags.get(_BITS, ()), default=1)
    if samples > _MOST_SAMPLES:
        raise Unreadable("mode", f"{samples} samples a pixel, the limit is {_MOST_SAMPLES}")
    across = _first(tags, _TILE_WIDTH, 0) or width
    down = _first(tags, _TILE_HEIGHT, 0) or min(_first(tags, _ROWS, height), height)
    grid = -(-width // max(1, across)) * -(-height // max(1, down)) * (samples if _first(tags, _PLANAR, 1) == 2 else 1)
    if grid > limits.max_chunks:
        raise _too_many(limits)
    turned = 4 * width * height if _first(tags, _ORIENTATION, 1) != 1 else 0
    if _first(tags, _COMPRESSION, _NONE) == _NONE:
        return turned, 1
    part = -(-across * down * max(samples, 1) * bits // 8)
    if _first(tags, _COMPRESSION, _NONE) not in _JPEGS:
        return turned + part, 1
    # libjpeg keeps the coefficients of several scans; a strip without its own tables is converted with four bytes
    scans = _scans(data, tags)
    return turned + part + across * down * (4 + 2 * samples * (scans > 1)), scans


def black_is_zero(data: bytes) -> tuple[bytes, bool]:
    """A file of gray values of more than 8 bits with its PhotometricInterpretation 0 replaced by 1, and whether it was.

    Pillow opens only some depths with 0, and inverts none of them.

    Args:
        data: A file that `tiff_layout` accepts.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:3] == b"+" or data[3:4] == b"+"
    head, entry, at_first = ("Q", 20, 8) if big else ("H", 12, 4)
    start = struct.unpack_from(order + ("Q" if big else "I"), data, at_first)[0]
    count = struct.unpack_from(order + head, data, start)[0]
    at, place, bits = start + struct.calcsize(head), 0, 1
    for _ in range(count):
        tag, value = struct.unpack_from(f"{order}H", data, at)[0], at + entry - (8 if big else 4)
        if tag == _BITS:
            bits = struct.unpack_from(f"{order}H", data, value)[0]
        elif tag == _PHOTOMETRIC and struct.unpack_from(f"{order}H", data, value)[0] == 0:
            place = value
        at += entry
    if not place or bits <= 8:
        return data, False
    one = struct.pack(f"{order}H", 1)
    return data[:place] + one + data[place + 2 :], True


def _tags(data: bytes, limits: Limits) -> dict[int, tuple[int, ...]]:
    """Integer values in the first directory; of repeated tags the first counts."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:3] == b"+" or data[3:4] == b"+":  # 43: BigTIFF
        start, head, entry, room = struct.unpack_from(f"{order}Q", data, 8)[0], "Q", "HHQ", 8
    else:
        start, head, entry, room = struct.unpack_from(f"{order}I", data, 4)[0], "H", "HHI", 4
    if start > len(data):
        raise Unreadable("truncated", "ends before its directory")
    count = struct.unpack_from(order + head, data, start)[0]
    if count > limits.max_chunks:
        raise _too_many(limits)
    tags: dict[int, tuple[int, ...]] = {}
    at, total = start + struct.calcsize(head), 0
    for _ in range(count):
        tag, kind, number = struct.unpack_from(order + entry, data, at)
        value = at + struct.calcsize(order + entry)
        at = value + room
        size = number * _SIZES.get(kind, 0)
        total += size
        if tag in _LONG and number > limits.max_chunks:
            raise _too_many(limits)
        if total > len(data):
            raise Unreadable("bomb:metadata", f"tags of {total} bytes in a file of {len(data)}")
        if size > room:
            value = struct.unpack_from(order + ("Q" if room == 8 else "I"), data, value)[0]
        if tag == _SAMPLES and (kind not in _WHOLE or number != 1):  # Pillow logs an error
            raise Unreadable("broken", "samples a pixel that are not one whole number")
        if kind in _WHOLE and number <= limits.max_chunks and value + size <= len(data):
            tags.setdefault(tag, struct.unpack_from(f"{order}{number}{_WHOLE[kind]}", data, value))
    return tags


def _first(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    return next(iter(tags.get(tag, ())), default)


def _scans(data: bytes, tags: dict[int, tuple[int, ...]]) -> int:
    """Largest number of scans of a strip or tile; each is a separate JPEG."""
    parts = {
        part
        for places, lengths in zip(_OFFSETS, _LENGTHS, strict=True)
        for part in zip(tags.get(places, ()), tags.get(lengths, ()), strict=False)
    }
    if sum(length for _, length in parts) > 2 * len(data):
        raise Unreadable("broken", f"strips or tiles that overlap, in a file of {len(data)} bytes")
    return max((data.count(b"\xff\xda", start, start + length) for start, length in parts), default=1)


def _too_many(limits: Limits) -> Unreadable:
    return Unreadable("bomb:chunks", f"more than data.limits.max_chunks={limits.max_chunks} strips, tiles or tags")
