"""What a manifest records of one file: its SHA-256, its header, whether it can be decoded, and a perceptual hash.

The perceptual hash is the 64-bit difference hash (Krawetz 2013, "Kind of like that") of the upright image, as
`imagehash.dhash` computes it:

1. The image is decoded as for training: first frame, upright by EXIF, transparent pixels over gray, RGB of 8 bits.
2. Gray values are `(19595 R + 38470 G + 7471 B + 32768) >> 16`.
3. The gray image is resized to 9 columns and 8 rows by Pillow's Lanczos filter with antialiasing.
4. The bit of row `y` and column `x` (0 to 7 each) is 1 if the value at `(x + 1, y)` is larger than that at `(x, y)`.
5. Bits are ordered row by row, each from left to right; the first one is the most significant of 64.

Equal images have equal hashes. Images that differ by size or compression have hashes that differ in few bits.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ssl_lightning.data.decode import Header, decode_with_header, header_of
from ssl_lightning.data.limits import Unreadable
from ssl_lightning.data.options import SourceOptions

OK, MISSING, QUARANTINED = "ok", "missing", "quarantined:"
"""Values of the column `status`; the last one is followed by the reason of an `Unreadable`."""
_COLUMNS, _ROWS = 9, 8


@dataclass(frozen=True)
class Examined:
    """What is known of one file.

    Attributes:
        sha256: Of its bytes.
        status: `OK`, or `QUARANTINED` and the reason why it cannot be decoded.
        header: Size as stored, before the orientation, and format and mode; None if it cannot be read.
        orientation: From 1 to 8; 1 is upright.
        phash: See the top of this file; None if it cannot be decoded.
    """

    sha256: bytes
    status: str
    header: Header | None
    orientation: int
    phash: int | None


def examine(data: bytes, options: SourceOptions) -> Examined:
    """Hash and decode one file.

    Args:
        data: The whole file.
        options: How it is decoded; an image that exceeds the limits is quarantined.
    """
    digest = hashlib.sha256(data).digest()
    try:
        pixels, header, orientation = decode_with_header(data, options.limits, options.window)
    except Unreadable as error:
        header, orientation = _header(data, options)
        return Examined(digest, QUARANTINED + error.reason, header, orientation, None)
    return Examined(digest, OK, header, orientation, difference_hash(pixels))


def difference_hash(pixels: UInt8[Tensor, "3 h w"]) -> int:
    """The difference hash of an upright image, as described at the top of this file."""
    image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    small = image.convert("L").resize((_COLUMNS, _ROWS), Image.Resampling.LANCZOS)
    values = np.asarray(small)
    return int.from_bytes(np.packbits(values[:, 1:] > values[:, :-1]).tobytes(), "big")


def _header(data: bytes, options: SourceOptions) -> tuple[Header | None, int]:
    try:
        return header_of(data, options.limits)
    except Unreadable:
        return None, 1
