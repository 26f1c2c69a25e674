"""The result of reading the structure of an image file, and the counters that limit it."""

from dataclasses import dataclass

from ssl_lightning.data.limits import Limits, Unreadable

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Supported formats. Other readers of Pillow are an attack surface (EPS runs Ghostscript)."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The structure of a file.

    Attributes:
        format: One of `FORMATS`.
        opened: Bytes for Pillow: the file without its metadata, or its head if another decoder reads the rest.
        held: Memory in bytes of the decoder beside the file, its image and the result.
        scans: Number of passes of the decoder over the whole image.
        orientation: From Exif or XMP; 1 for TIFF, which Pillow rotates itself.
        strips: Compressed data of a PNG that is decoded in strips.
        still: Whether a WebP has no animation.
        inverted: Whether 0 is white in `opened`, against its header.
    """

    format: str
    opened: bytes
    held: int = 0
    scans: int = 1
    orientation: int = 1
    strips: tuple[memoryview, ...] = ()
    still: bool = True
    inverted: bool = False


class Counts:
    """Counters of chunks and fill bytes, which raise at their limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.chunks, self.fill = limits, 0, 0

    def chunk(self) -> None:
        """Count a chunk."""
        self.chunks += 1
        if self.chunks > self.limits.max_chunks:
            raise Unreadable("bomb:chunks", f"more than data.limits.max_chunks={self.limits.max_chunks} chunks")

    def skip(self, count: int) -> None:
        """Count fill bytes."""
        self.fill += count
        if self.fill > self.limits.max_fill:
            raise Unreadable("bomb:fill", f"more than data.limits.max_fill={self.limits.max_fill} bytes of no segment")
