"""Orientation of images from Exif or XMP metadata."""

import re
import struct

MOST_METADATA = 1 << 20
"""Largest number of metadata bytes that are read."""

_TAG, _SHORT = 0x0112, 3
_XMP = re.compile(rb'tiff:Orientation(="|>)([0-9])')


def of_exif(exif: bytes) -> int | None:
    """The orientation in the first directory of Exif data, which has the format of a TIFF file; None if absent."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return None
    start = struct.unpack_from(f"{order}I", exif, 4)[0]
    count = int.from_bytes(exif[start : start + 2], "little" if order == "<" else "big")
    table = exif[start + 2 : start + 2 + 12 * count]
    for tag, kind, number, value in struct.iter_unpack(f"{order}HHIH2x", table[: len(table) // 12 * 12]):
        if tag == _TAG:
            return value if kind == _SHORT and number == 1 else None
    return None


def of_xmp(xmp: bytes) -> int | None:
    """The orientation in an XMP packet; None if there is none."""
    match = _XMP.search(xmp)
    return int(match[2]) if match else None
