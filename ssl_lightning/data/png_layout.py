"""Chunks of a PNG file."""

import struct
import zlib

from ssl_lightning.data.limits import Limits, Unreadable
from ssl_lightning.data.orientation import MOST_METADATA, of_exif, of_xmp
from ssl_lightning.data.png_strips import CHANNELS, STRIP
from ssl_lightning.data.walks import Counts, Layout

_LARGE = 4_000_000
"""Files with more pixels are decoded in strips."""
_PIXELS = (b"IHDR", b"PLTE", b"tRNS")
_TEXTS = (b"iTXt", b"zTXt", b"tEXt")
_END = b"\0\0\0\0IEND\xaeB`\x82"
_EMPTY = b"\0\0\0\0IDAT5\xaf\x06\x1e"


def png_layout(data: bytes, limits: Limits) -> Layout:
    """Read the chunks.

    Raises:
        Unreadable: With reason truncated, broken or bomb:chunks.
    """
    view, counts, at = memoryview(data), Counts(limits), 8
    head, compressed, exif, xmp = [view[:8]], [], b"", b""
    ended = False
    while len(data) >= at + 8:
        size, name = struct.unpack_from(">I4s", data, at)
        start, at = at, at + 12 + size
        content = view[start + 8 : start + 8 + size]
        counts.chunk()
        if name == b"IDAT" and not ended:
            compressed.append((start, at))
            continue
        ended = bool(compressed)
        if name == b"IEND" or (ended and at > len(data)):
            break
        if not ended:
            _check_sum(data, start, at)
        if name == b"IHDR" and start != 8:
            raise Unreadable("broken", "a second header")
        if name in _PIXELS and not ended:
            head.append(view[start:at])
        elif name == b"eXIf":
            exif = exif or bytes(content[:MOST_METADATA])
        elif name in _TEXTS:
            exif, xmp = exif or _raw_profile(name, content), xmp or _xmp(name, content)
    orientation = of_exif(exif) or of_xmp(xmp) or 1
    if compressed and _can_be_stripped(data):
        for start, end in compressed:
            _check_sum(data, start, end)
        strips = tuple(view[start + 8 : end - 4] for start, end in compressed)
        return Layout("PNG", b"".join((*head, _EMPTY)), 16 * STRIP, orientation=orientation, strips=strips)
    parts = (view[start:end] for start, end in compressed)
    end = _END if not compressed or compressed[-1][1] <= len(data) else b""
    return Layout("PNG", b"".join((*head, *parts, end)), orientation=orientation)


def _can_be_stripped(data: bytes) -> bool:
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    first = data[8:16] == b"\0\0\0\rIHDR"
    return first and width * height > _LARGE and depth == 8 and color in CHANNELS and interlaced == 0


def _check_sum(data: bytes, start: int, end: int) -> None:
    """Verify the checksum of a chunk that Pillow does not receive."""
    name = data[start + 4 : start + 8]
    if end > len(data):
        raise Unreadable("truncated", f"ends within the chunk {name!r}")
    if zlib.crc32(memoryview(data)[start + 4 : end - 4]).to_bytes(4, "big") != data[end - 4 : end]:
        raise Unreadable("broken", f"wrong checksum of the chunk {name!r}")


def _raw_profile(name: bytes, content: memoryview) -> bytes:
    """Exif in the form of ImageMagick: hexadecimal digits in a text chunk after three lines."""
    text = bytes(content[:MOST_METADATA])
    key, _, text = text.partition(b"\0")
    if key != b"Raw profile type exif" or name == b"iTXt":
        return b""
    try:
        text = _inflated(text[1:]) if name == b"zTXt" else text
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except (ValueError, zlib.error):
        return b""


def _xmp(name: bytes, content: memoryview) -> bytes:
    text = bytes(content[:MOST_METADATA])
    if name != b"iTXt" or not text.startswith(b"XML:com.adobe.xmp\0"):
        return b""
    try:
        return _inflated(text[text.index(b"\0", text.index(b"\0", 20) + 1) + 1 :]) if text[18:19] == b"\1" else text
    except (ValueError, zlib.error):
        return b""


def _inflated(text: bytes) -> bytes:
    return zlib.decompressobj().decompress(text, MOST_METADATA)
