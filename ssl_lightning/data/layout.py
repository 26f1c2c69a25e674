"""Structure of an image file, read without decoding: the cost of decoding, and the parts that decoding needs.

On opening a file, Pillow reads all metadata: segments, text chunks, profiles and tags, partly byte by byte and partly
decompressed. It therefore receives only the parts that contain pixels, and the orientation is read here.
"""

import re
import struct
from collections.abc import Callable

from ssl_lightning.data.jpeg_layout import jpeg_layout
from ssl_lightning.data.limits import Limits, Unreadable
from ssl_lightning.data.orientation import MOST_METADATA, of_exif, of_xmp
from ssl_lightning.data.png_layout import png_layout
from ssl_lightning.data.tiff_layout import black_is_zero, tiff_layout
from ssl_lightning.data.walks import FORMATS, Counts, Layout

_STRANGE = re.compile(rb"[^!,;]+")
_RUN_PIXELS, _RUN_BYTES = 4_000_000, 2_000_000
"""Largest run-length encoded bitmap in pixels: Pillow decodes them in Python, one run at a time."""


def layout_of(data: bytes, limits: Limits) -> Layout:
    """Read the structure of a file; its name does not matter.

    Args:
        data: The whole file.
        limits: Limits of the structure.

    Raises:
        Unreadable: With reason empty, format, truncated or broken, or bomb:chunks, bomb:fill, bomb:runs.
    """
    if not data:
        raise Unreadable("empty", "0 bytes")
    walk = next((walk for start, walk in _WALKS.items() if data.startswith(start)), None)
    if walk is None:
        raise Unreadable("format", f"starts with {data[:12]!r}, expected one of {', '.join(FORMATS)}")
    return walk(data, limits)


def _webp(data: bytes, limits: Limits) -> Layout:
    if data[8:12] != b"WEBP":
        raise Unreadable("format", f"starts with {data[:12]!r}, expected one of {', '.join(FORMATS)}")
    counts, at, still, lossless, alpha = Counts(limits), 12, True, False, False
    exif = xmp = b""
    pixels = 0
    while len(data) >= at + 8:
        name, size = struct.unpack_from("<4sI", data, at)
        start, at = at + 8, at + 8 + size + size % 2
        counts.chunk()
        if name == b"VP8X":
            still = still and not (data[start : start + 1] or b"\0")[0] & 2
            pixels = _webp_side(data, start + 4) * _webp_side(data, start + 7)
        elif name in (b"ANIM", b"ANMF"):
            still = False
        elif name == b"VP8L":
            lossless = True
            pixels = pixels or _lossless_pixels(data, start)
        elif name == b"VP8 ":
            pixels = pixels or _lossy_pixels(data, start)
        elif name == b"ALPH":
            alpha = True
        elif name == b"EXIF":
            exif = exif or data[start : start + min(size, MOST_METADATA)]
        elif name == b"XMP ":
            xmp = xmp or data[start : start + min(size, MOST_METADATA)]
    orientation = of_exif(exif.removeprefix(b"Exif\0\0")) or of_xmp(xmp) or 1
    held = (4 * lossless + alpha) * pixels if still else 16 * pixels
    return Layout("WEBP", data, held, orientation=orientation, still=still)


def _webp_side(data: bytes, at: int) -> int:
    return 1 + int.from_bytes(data[at : at + 3], "little")


def _lossless_pixels(data: bytes, at: int) -> int:
    bits = int.from_bytes(data[at + 1 : at + 5], "little")
    return (1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF))


def _lossy_pixels(data: bytes, at: int) -> int:
    width, height = (int.from_bytes(data[place : place + 2], "little") & 0x3FFF for place in (at + 6, at + 8))
    return width * height


def _gif(data: bytes, limits: Limits) -> Layout:
    """Only the part before the first frame is read, as in Pillow."""
    if len(data) < 13:
        raise Unreadable("truncated", "ends within its header")
    counts = Counts(limits)
    first = at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    control = b""
    while at < len(data) and data[at : at + 1] not in (b",", b";"):
        if strange := _STRANGE.match(data, at):
            counts.skip(len(strange[0]))
            at = strange.end()
            continue
        start, at = at, at + 2
        while at < len(data) and data[at]:
            counts.chunk()
            at += 1 + data[at]
        at += 1
        counts.chunk()
        if data[start + 1 : start + 3] == b"\xf9\x04" and at == start + 8:
            # the disposal of this frame is irrelevant and would need the memory of another frame
            control = b"!\xf9\x04" + bytes((data[start + 3] & ~0x1C,)) + data[start + 4 : start + 8]
    opened = data if at == first else data[:first] + control + data[at:]
    return Layout("GIF", opened)


def _bmp(data: bytes, limits: Limits) -> Layout:
    if len(data) < 34:
        raise Unreadable("truncated", "ends within its header")
    size = int.from_bytes(data[14:18], "little")
    if size < 40 or int.from_bytes(data[30:34], "little") not in (1, 2):
        return Layout("BMP", data)
    width, height = struct.unpack_from("<ii", data, 18)
    if abs(width * height) > _RUN_PIXELS or len(data) > _RUN_BYTES:
        found = f"{width} x {height} pixels in {len(data)} bytes of run lengths"
        raise Unreadable("bomb:runs", f"{found}, the limit is {_RUN_PIXELS} pixels in {_RUN_BYTES} bytes")
    return Layout("BMP", data, held=2 * abs(width * height))


def _tiff(data: bytes, limits: Limits) -> Layout:
    held, scans = tiff_layout(data, limits)
    opened, inverted = black_is_zero(data)
    return Layout("TIFF", opened, held, scans, inverted=inverted)


_WALKS: dict[bytes, Callable[[bytes, Limits], Layout]] = {
    b"\xff\xd8\xff": jpeg_layout,
    b"\x89PNG\r\n\x1a\n": png_layout,
    b"RIFF": _webp,
    b"GIF87a": _gif,
    b"GIF89a": _gif,
    b"BM": _bmp,
    b"II": _tiff,
    b"MM": _tiff,
}
