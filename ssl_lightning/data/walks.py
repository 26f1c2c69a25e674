"""What a walk over the structure of an image file finds, and where it stops."""

from dataclasses import dataclass

from ssl_lightning.data.limits import Limits, Unreadable

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is looked for. Pillow's other readers are attack surface (EPS runs Ghostscript) and no training data."""


@dataclass(frozen=True, eq=False)
class Layout:
    """What a walk over a file found.

    Attributes:
        format: One of `FORMATS`.
        opened: What Pillow is to open: the file without its metadata, or its head where another decoder reads the rest.
        held: Bytes that the decoder holds beside the file, its own image and the result.
        scans: How often the decoder passes over the whole image.
        orientation: By Exif or XMP; 1 for TIFF, which Pillow turns itself.
        strips: Of a PNG that is to be decoded in strips: its compressed data.
        still: Of a WebP: no animation.
    """

    format: str
    opened: bytes
    held: int = 0
    scans: int = 1
    orientation: int = 1
    strips: tuple[memoryview, ...] = ()
    still: bool = True


class Counts:
    """Chunks and fill bytes so far; raises at the first too many."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.chunks, self.fill = limits, 0, 0

    def chunk(self) -> None:
        """Count one."""
        self.chunks += 1
        if self.chunks > self.limits.max_chunks:
            raise Unreadable("bomb:chunks", f"more than data.limits.max_chunks={self.limits.max_chunks} chunks")

    def skip(self, count: int) -> None:
        """Count fill bytes."""
        self.fill += count
        if self.fill > self.limits.max_fill:
            raise Unreadable("bomb:fill", f"more than data.limits.max_fill={self.limits.max_fill} bytes of no segment")
