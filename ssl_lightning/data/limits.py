"""Limits on the cost of decoding an image, and the exception of decoders."""

from dataclasses import dataclass

from ssl_lightning.errors import UsageError

_PILLOW_PIXELS = 178_956_970
"""Pillow rejects larger images under any setting."""


@dataclass(frozen=True)
class Limits:
    """Limits on the header and structure of an image file; a file beyond them counts as unreadable.

    Attributes:
        max_pixels: Width times height in pixels; 50,000,000 are 50 megapixels. Above 100 megapixels `max_memory` needs
            to be raised too.
        max_side: Longer side in pixels.
        max_aspect: Longer over shorter side; strips such as spectrograms and lines of text may need more.
        max_scans: Number of scans of a progressive JPEG; each one takes time for the whole image.
        max_scan_pixels: Scans times pixels.
        max_chunks: Number of chunks, segments, frames, strips or tiles of a file.
        max_fill: Number of bytes between the segments of a file.
        max_memory: Memory in bytes of decoding one image: the file, the decoder's image and the RGB result.
    """

    max_pixels: int = 50_000_000
    max_side: int = 20_000
    max_aspect: float = 50.0
    max_scans: int = 100
    max_scan_pixels: int = 1_000_000_000
    max_chunks: int = 10_000
    max_fill: int = 65_536
    max_memory: int = 300_000_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise UsageError(f"found data.limits.{name}={value}; expected at least 1")
        if self.max_pixels > _PILLOW_PIXELS:
            raise UsageError(f"found data.limits.max_pixels={self.max_pixels}; expected at most {_PILLOW_PIXELS}")
        if 3 * self.max_pixels > self.max_memory:
            raise UsageError(
                f"found data.limits.max_pixels={self.max_pixels}, which takes {3 * self.max_pixels} bytes as RGB, more "
                f"than data.limits.max_memory={self.max_memory}: raise both"
            )


DEFAULT_LIMITS = Limits()


class Unreadable(ValueError):
    """Bytes that cannot be used as an image.

    Attributes:
        reason: A short word for tables: empty, format, truncated, broken, side, aspect, depth, mode, or bomb:
            followed by the exceeded quantity (pixels, scans, chunks, fill, runs, metadata, memory).
    """

    def __init__(self, reason: str, found: str) -> None:
        super().__init__(f"unreadable image ({reason}): {found}")
        self.reason = reason

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[str, str]]:
        return type(self), (self.reason, str(self).partition("): ")[2])  # pickled from a worker to the main process
