"""Segments and scans of a JPEG file."""

import re
import struct

from ssl_lightning.data.limits import Limits, Unreadable
from ssl_lightning.data.orientation import of_exif, of_xmp
from ssl_lightning.data.walks import Counts, Layout

_FILL, _ESCAPED = re.compile(rb"\xff+"), re.compile(rb"(\xff\x00)+")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_STANDALONE = frozenset((0x01, *range(0xD0, 0xDA)))
_ODD = frozenset(bytes((code,)) for code in (0, 0xFF, *_STANDALONE)) | {b""}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = (0xC0, 0xC1)
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_KEPT = {0xE0: b"JF", 0xE2: b"MPF\0", 0xEE: b"Adobe"}
"""Application segments that affect the pixels or the number of images."""


def jpeg_layout(data: bytes, limits: Limits) -> Layout:
    """Read the segments, and the scans if there are several.

    Raises:
        Unreadable: With reason truncated, broken, bomb:chunks or bomb:fill.
    """
    counts, kept, at = Counts(limits), [data[:2]], 2
    frame, exif, xmp = b"", b"", b""
    while True:
        code, start, end = _segment(data, at, counts)
        if code == 0xDA:
            break
        at = end
        content = data[start + 2 : end]
        if code in _FRAMES and len(content) >= 6:
            frame = bytes((code,)) + content
        if code == 0xE1 and content.startswith(_EXIF):
            exif = exif or content
        elif code == 0xE1 and content.startswith(_XMP):
            xmp = xmp or content
        elif _matters(code, content):
            kept.append(b"\xff" + bytes((code,)) + data[start:end])
    if not frame:
        raise Unreadable("broken", "a scan before the frame header")
    multiple = frame[0] not in _SEQUENTIAL or data[start + 2] < frame[6]
    scans = _scans(data, end, counts) if multiple else 1
    if data.find(b"\xff" * (limits.max_fill + 1), end) >= 0:
        counts.skip(limits.max_fill + 1)
    # libjpeg decodes the whole file, except CMYK, which Pillow decodes
    rest = data[start:] if frame[6] == 4 else data[start:end]
    opened = b"".join(kept) + b"\xff\xda" + rest
    held = _coefficients(frame) if multiple else 0
    return Layout("JPEG", opened, held, scans, of_exif(exif[6:]) or of_xmp(xmp) or 1)


def _segment(data: bytes, at: int, counts: Counts) -> tuple[int, int, int]:
    """Code, start (of the length) and end of the next segment that has a length."""
    while True:
        if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in _ODD:  # the common case
            counts.chunk()
            return data[at + 1], at + 2, _end(data, at + 2)
        start = data.find(b"\xff", at)
        match = _FILL.match(data, start) if start >= 0 else None
        if match is None or match.end() == len(data):
            raise Unreadable("truncated", "ends before its first scan")
        counts.skip(match.end() - 1 - at)
        code, at = data[match.end()], match.end() + 1
        if code == 0:
            run = _ESCAPED.match(data, at - 2)
            assert run is not None
            at = run.end()
            counts.skip(len(run[0]))
        elif code in _STANDALONE:
            counts.chunk()
        else:
            counts.chunk()
            return code, at, _end(data, at)


def _end(data: bytes, at: int) -> int:
    """End of the segment with its length field at this position."""
    end = at + int.from_bytes(data[at : at + 2], "big")
    if end > len(data):
        raise Unreadable("truncated", "ends within a segment")
    if end < at + 2:
        raise Unreadable("broken", "a segment of fewer than 2 bytes")
    return end


def _matters(code: int, content: bytes) -> bool:
    if 0xE0 <= code <= 0xEF:
        return code in _KEPT and content.startswith(_KEPT[code])
    return code != 0xFE


def _scans(data: bytes, at: int, counts: Counts) -> int:
    """Number of scans, from the content of the first one on; raises if there are too many segments."""
    scans = 1
    while match := _MARKER.search(data, at):
        code = data[match.end() - 1]
        if code == 0xD9:
            break
        if code == 0xFF:
            run = _FILL.match(data, match.start())
            assert run is not None
            at = run.end() - 1 if data[run.end() : run.end() + 1] > b"\0" else run.end()
            counts.skip(run.end() - match.start() - 1)
            continue
        counts.chunk()
        scans += code == 0xDA
        at = match.end() if code == 0x01 else match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return scans


def _coefficients(frame: bytes) -> int:
    """Bytes of the coefficients, which libjpeg keeps for the whole image if it has several scans."""
    height, width, count = struct.unpack_from(">HHB", frame, 2)
    factors = [(byte >> 4, byte & 15) for byte in frame[8 : 7 + 3 * count : 3]]
    if not factors or min(min(pair) for pair in factors) < 1:
        return 0
    across, down = max(pair[0] for pair in factors), max(pair[1] for pair in factors)
    blocks = -(-width // (8 * across)) * -(-height // (8 * down)) * sum(h * v for h, v in factors)
    return 128 * blocks
