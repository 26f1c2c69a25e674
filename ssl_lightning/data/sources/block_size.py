"""The largest block of a table or file of arrays that is read."""

LARGEST_BLOCK = 1 << 30
"""Bytes of images of one row group or batch; a table with larger ones is not read."""


class TooLargeError(OSError):
    """A block that declares more than `LARGEST_BLOCK` bytes; phrased as the end of a sentence about its table."""
