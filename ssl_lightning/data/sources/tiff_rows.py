"""Pixels as bytes of an uncompressed TIFF file, so that arrays are decoded as files are: depth, window and limits."""

import struct

import numpy as np

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP, _SAMPLES = 256, 257, 258, 259, 262, 273, 277
_ROWS, _LENGTH, _PLANAR, _EXTRA, _FORMAT = 278, 279, 284, 338, 339
_SHORT, _LONG = 3, 4
_FORMATS = {"u": 1, "i": 2, "f": 3}
_NUMBERS = 16
"""Bytes of the numbers of several channels: four depths, four kinds."""
_UNASSOCIATED = 2
"""Alpha that the colors are not multiplied by."""
_DTYPES = {"?": "u1", "b": "<i2", "e": "<f4", "d": "<f4", "g": "<f4", "q": "<f4", "Q": "<f4", "l": "<f4", "L": "<f4"}
"""Values of kinds that no decoder reads, as the nearest kind that one does."""


def header_size(channels: int) -> int:
    """Bytes before the pixels."""
    return 8 + 2 + 12 * (11 + (channels == 4)) + 4 + _NUMBERS


def as_tiff(pixels: np.ndarray) -> bytes:
    """A TIFF file of one image.

    Args:
        pixels: Gray values [h, w], or 3 or 4 channels [h, w, c] of unsigned integers of 8 or 16 bits.
    """
    values = stored(pixels)
    channels = 1 if values.ndim == 2 else values.shape[2]
    bits, kind = 8 * values.dtype.itemsize, _FORMATS[values.dtype.kind]
    start = header_size(channels)
    several, behind = channels > 2, start - _NUMBERS  # what does not fit into an entry lies behind the directory
    entries = [
        (_WIDTH, _LONG, 1, values.shape[1]),
        (_HEIGHT, _LONG, 1, values.shape[0]),
        (_BITS, _SHORT, channels, behind if several else bits),
        (_COMPRESSION, _SHORT, 1, 1),
        (_PHOTOMETRIC, _SHORT, 1, 2 if several else 1),
        (_STRIP, _LONG, 1, start),
        (_SAMPLES, _SHORT, 1, channels),
        (_ROWS, _LONG, 1, values.shape[0]),
        (_LENGTH, _LONG, 1, min(values.nbytes, 2**32 - 1)),
        (_PLANAR, _SHORT, 1, 1),
        *([(_EXTRA, _SHORT, 1, _UNASSOCIATED)] if channels == 4 else []),
        (_FORMAT, _SHORT, channels, behind + 8 if several else kind),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    numbers = struct.pack("<4H4H", *[bits] * 4, *[kind] * 4)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + numbers
    return head + values.tobytes()


def stored(pixels: np.ndarray) -> np.ndarray:
    """The pixels in a kind of value that the decoder reads: truth values as 0 and 255, 64-bit numbers as floats."""
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    wanted = stored_type(pixels.dtype)
    return np.ascontiguousarray(pixels).astype(wanted, copy=False)


def stored_type(dtype: np.dtype) -> np.dtype:
    """The kind of value in the file."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.itemsize == 8 or dtype.char in _DTYPES:
        return np.dtype("<i2") if dtype.char == "b" else np.dtype("<f4")
    return dtype.newbyteorder("<")
