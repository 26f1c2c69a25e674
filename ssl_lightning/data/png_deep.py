"""PNG files of 16-bit gray values with alpha. Pillow keeps the upper 8 bits alone.

A pixel takes four bytes, those of an 8-bit RGBA pixel, and filters work on bytes of the same distance. With another
header, the same data are an RGBA image: upper and lower byte of the gray value, then those of alpha.
"""

import struct
import zlib

import numpy as np
from jaxtyping import UInt8, UInt16

_SIGNATURE, _DEPTH_AND_COLOR, _HEADER_ENDS = b"\x89PNG\r\n\x1a\n", slice(24, 26), 29
_GRAY_WITH_ALPHA, _RGBA = bytes((16, 4)), bytes((8, 6))
"""Bits and color type."""


def is_deep_with_alpha(data: bytes) -> bool:
    """Whether a file is such a PNG."""
    return data[:8] == _SIGNATURE and data[_DEPTH_AND_COLOR] == _GRAY_WITH_ALPHA


def as_bytes(data: bytes) -> bytes:
    """The file as a PNG of 8-bit RGBA pixels. Their channels are the bytes of its values.

    Args:
        data: A file for which `is_deep_with_alpha` holds.
    """
    header = data[12:24] + _RGBA + data[26:_HEADER_ENDS]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[_HEADER_ENDS + 4 :]


def deep_values(pixels: UInt8[np.ndarray, "h w 4"]) -> UInt16[np.ndarray, "h w"]:
    """Gray values from the bytes of `as_bytes`."""
    return pixels[..., 0].astype(np.uint16) << 8 | pixels[..., 1]
