"""Decoding of large PNG files in strips: each strip becomes a small PNG, so that no decoder holds the whole image."""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence

from PIL import Image

from ssl_lightning.data.limits import Unreadable

STRIP = 1 << 20
"""Size of a strip in bytes."""
_FED = 1 << 16
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels of each color type."""


def png_strips(head: bytes, compressed: Sequence[memoryview]) -> Iterator[Image.Image]:
    """The image in horizontal strips of full width, from top to bottom.

    Filters refer to the row above, so each strip but the first starts with the last row of the previous one.

    Args:
        head: Signature, IHDR of 8 bits without interlacing, PLTE and tRNS.
        compressed: The contents of the IDAT chunks.

    Raises:
        Unreadable: With reason truncated.
    """
    width, height, color = struct.unpack_from(">IIxB", head, 16)
    row = 1 + width * CHANNELS[color]
    rows = max(1, STRIP // row)
    inflated = _Inflated(compressed)
    above = b""
    for top in range(0, height, rows):
        count = min(rows, height - top)
        content = inflated.read(count * row)
        strip = _image(head, count + bool(above), above + content)
        strip = strip.crop((0, 1, width, count + 1)) if above else strip
        above = b"\0" + strip.crop((0, count - 1, width, count)).tobytes()
        yield strip


class _Inflated:
    """A reader of the compressed data of all chunks as one stream."""

    def __init__(self, compressed: Sequence[memoryview]) -> None:
        self.inflate = zlib.decompressobj()
        self.pieces = (part[at : at + _FED] for part in compressed for at in range(0, len(part), _FED))

    def read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            piece = self.inflate.unconsumed_tail or next(self.pieces, None)
            if piece is None or self.inflate.eof:
                raise Unreadable("truncated", "the compressed data end before the image does")
            found += self.inflate.decompress(piece, size - len(found))
        return bytes(found)


def _image(head: bytes, height: int, content: bytes) -> Image.Image:
    header = head[16:20] + struct.pack(">I", height) + head[24:29]
    stored = zlib.compress(content, 0)
    chunks = (_chunk(b"IHDR", header), head[33:], _chunk(b"IDAT", stored), _chunk(b"IEND", b""))
    image = Image.open(io.BytesIO(b"".join((head[:8], *chunks))), formats=("PNG",))
    image.load()
    return image


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
