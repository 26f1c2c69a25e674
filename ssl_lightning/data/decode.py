"""Bytes of unknown origin to a uint8 picture, or one exception with the reason: nothing else ever comes out.

The contract: JPEG, PNG, WebP, GIF, BMP or TIFF by content, whatever the file is called; the size in the header is
checked before a pixel is decoded; first frame; upright by EXIF; 16 bits scaled to 8 by 1/257, not clipped; transparency
over grey; palettes, grey, bilevel and CMYK become RGB; floating-point pixels are refused.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is looked for. Pillow's other readers are attack surface (EPS runs Ghostscript) and no training data."""

_GREY = (128, 128, 128)
_ORIENTATION = 0x0112
"""The EXIF tag that says which way is up."""


@dataclass(frozen=True)
class Limits:
    """What a header may say before a picture is refused unseen.

    Attributes:
        max_pixels: Width times height.
        max_side: Longer side in pixels.
        max_aspect: Longer over shorter side.
    """

    max_pixels: int = 50_000_000
    max_side: int = 20_000
    max_aspect: float = 50.0


class Unreadable(ValueError):
    """Bytes that are no picture to train on.

    Attributes:
        reason: A short slug for tables: empty, format, truncated, broken, bomb, side, aspect, float, depth or mode.
    """

    def __init__(self, reason: str, found: str) -> None:
        super().__init__(f"unreadable picture ({reason}): {found}")
        self.reason = reason

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[str, str]]:
        return type(self), (self.reason, str(self).partition("): ")[2])  # crosses from a worker to its parent


class Header(NamedTuple):
    """What a file says of itself, before any pixel is decoded; the size is not yet turned upright by EXIF.

    `format` is one of `FORMATS`, or MPO: a JPEG with further pictures behind it, as some cameras write.
    """

    width: int
    height: int
    format: str
    mode: str


def probe(data: bytes) -> Header:
    """Size, format and pixel mode, without decoding pixels and without judging them.

    Raises:
        Unreadable: If the bytes are no picture of a known format.
    """
    with _guarded(), _open(data) as picture:
        return _header(picture)


def decode(data: bytes, limits: Limits = Limits()) -> UInt8[Tensor, "3 h w"]:
    """The picture in these bytes, by the contract at the top of this file.

    Args:
        data: A whole file.
        limits: What its header may say.

    Returns:
        RGB; in memory the channels lie innermost, as decoders write them.

    Raises:
        Unreadable: Whatever is wrong with the bytes; `reason` says what.

    Note:
        Of a JPEG that is damaged but complete libjpeg makes what it can, as in every viewer. It and libtiff may print a
        line about it to standard error.
    """
    with _guarded(), _open(data) as picture:
        header = _header(picture)
        check_header(header, limits)
        if header.format in ("JPEG", "MPO") and header.mode in ("RGB", "L"):
            pixels = _decode_jpeg(data)
        else:
            pixels = torch.from_numpy(_rgb(picture)).permute(2, 0, 1)
        return _upright(pixels, _orientation(picture))  # read last: Pillow turns a TIFF while it loads it


def check_header(header: Header, limits: Limits = Limits()) -> None:
    """Judges a picture by its header.

    Raises:
        Unreadable: With reason side, bomb or aspect.
    """
    width, height = header.width, header.height
    size = f"{width} x {height} pixels"
    if min(width, height) < 1:
        raise Unreadable("broken", size)
    if max(width, height) > limits.max_side:
        raise Unreadable("side", f"{size}, the limit is {limits.max_side} a side")
    if width * height > limits.max_pixels:
        raise Unreadable("bomb", f"{size}, the limit is {limits.max_pixels} in all")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Unreadable("aspect", f"{size}, the limit is {limits.max_aspect:g} to 1")


@contextmanager
def _guarded() -> Iterator[None]:
    """Decoders of broken files warn and raise anything; only `Unreadable` leaves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(_reason(error), " ".join(f"{type(error).__name__}: {error}".split())) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "bomb"
    cut = isinstance(error, EOFError) or any(word in str(error).lower() for word in ("truncated", "incomplete"))
    return "truncated" if cut else "broken"


def _open(data: bytes) -> Image.Image:
    if not data:
        raise Unreadable("empty", "0 bytes")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise Unreadable("format", f"starts with {data[:12]!r}, expected one of {', '.join(FORMATS)}") from error


def _header(picture: Image.Image) -> Header:
    return Header(*picture.size, format=picture.format or "", mode=picture.mode)


def _decode_jpeg(data: bytes) -> UInt8[Tensor, "3 h w"]:
    # the same libjpeg as Pillow's, 1.5 to 2 times as fast; never given CMYK, which it reads without Adobe's inversion
    pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    assert isinstance(pixels, Tensor)  # a list only for a list of files
    return pixels


def _rgb(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    mode = picture.mode
    if mode == "F":
        raise Unreadable("float", "floating-point pixels have no agreed white")
    if mode == "I" or mode.startswith("I;16"):
        return _scaled(np.asarray(picture))
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = _over_grey(picture.convert("RGBA"))
    return np.array(picture.convert("RGB"))


def _scaled(deep: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if deep.min() < 0 or deep.max() > 65535:
        raise Unreadable("depth", f"integers {deep.min()} to {deep.max()}, more than 16 bits")
    grey = ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _over_grey(picture: Image.Image) -> Image.Image:
    ground = Image.new("RGB", picture.size, _GREY)
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1  # broken notes about a picture are no reason to lose it


def _upright(pixels: UInt8[Tensor, "3 h w"], turned: int) -> UInt8[Tensor, "3 _h _w"]:
    """Undoes one of the eight EXIF orientations; any other number counts as upright."""
    if turned in (5, 6, 7, 8):
        pixels = pixels.mT
    axes = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(turned, ())
    return pixels.flip(axes) if axes else pixels
