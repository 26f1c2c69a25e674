"""Decoding of untrusted bytes to a uint8 image. Failures raise `Unreadable` with a reason and nothing else.

Formats are JPEG, PNG, WebP, GIF, BMP and TIFF, recognized by content and not by file name. Size, structure and the
memory of decoding are checked before a pixel is decoded. The result is the first frame, upright by EXIF. Transparent
pixels are blended with gray. Palettes, bilevel and CMYK images are converted to RGB.

Gray values become three equal channels. Of unsigned integers of 1 to 16 bits 0 is black and the largest value white, or
the reverse in a TIFF with PhotometricInterpretation 0. Signed integers, 32-bit integers and floats need an
intensity window. A window applies to gray images of more than 8 bits, with alpha too, and signed ones; color of 16 bits
keeps its upper 8 bits.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, decode_webp

from ssl_lightning.data.c_errors import quiet_decoders
from ssl_lightning.data.intensity import IntensityWindow, to_gray
from ssl_lightning.data.layout import layout_of
from ssl_lightning.data.limits import DEFAULT_LIMITS, Limits, Unreadable
from ssl_lightning.data.png_deep import as_bytes, deep_values, is_deep_with_alpha
from ssl_lightning.data.png_strips import png_strips
from ssl_lightning.data.walks import FORMATS, Layout

__all__ = [
    "FORMATS",
    "Decoded",
    "Header",
    "Limits",
    "Unreadable",
    "check_header",
    "decode",
    "decode_with_header",
    "header_of",
]

_GRAY = (128, 128, 128)
_BAND = 1 << 18
"""Pixels per block of a conversion."""
_HELD = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes per pixel of Pillow's images; all other modes take four."""
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262
"""A value of a TIFF tag, and the tag."""
_BITS, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2
"""Tags of a TIFF, and a value of the second one."""
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274
"""Tags of a TIFF."""


class Header(NamedTuple):
    """The header of a file, before any pixel is decoded. The size does not take the EXIF orientation into account.

    `format` is one of `FORMATS`, or MPO: a JPEG followed by further images, written by some cameras.
    """

    width: int
    height: int
    format: str
    mode: str


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS, window: IntensityWindow = None) -> UInt8[Tensor, "3 h w"]:
    """Decode an image as described at the top of this file.

    Args:
        data: The whole file.
        limits: Limits of its cost.
        window: Gray values that become black and white.

    Returns:
        RGB; channels are innermost in memory, as decoders write them.

    Raises:
        Unreadable: For any fault of the bytes, with its `reason`.

    Note:
        A JPEG that is damaged but complete is decoded as far as libjpeg can, as in every viewer.
    """
    return decode_with_header(data, limits, window).pixels


class Decoded(NamedTuple):
    """A decoded image, its header, and the EXIF orientation from 1 to 8 that has been undone."""

    pixels: UInt8[Tensor, "3 h w"]
    header: Header
    orientation: int


def decode_with_header(data: bytes, limits: Limits = DEFAULT_LIMITS, window: IntensityWindow = None) -> Decoded:
    """See `decode`."""
    with _guarded(), quiet_decoders():
        layout = layout_of(data, limits)
        with _open(layout) as image:
            header = _header(image)
            check_header(header, limits)
            _check_cost(header, layout, limits, data)
            as_stored, orientation = _as_stored(image, header, layout)
            pixels = _upright(_pixels(data, layout, header, image, window), layout.orientation)
            return Decoded(pixels, as_stored, orientation)


def header_of(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[Header, int]:
    """The header and the EXIF orientation of a file without decoding its pixels.

    Raises:
        Unreadable: If they cannot be read; a header beyond the limits can.
    """
    layout = layout_of(data, limits)
    with _guarded(), quiet_decoders(), _open(layout) as image:
        return _as_stored(image, _header(image), layout)


def _as_stored(image: Image.Image, header: Header, layout: Layout) -> tuple[Header, int]:
    """The header before any rotation, and the orientation. Pillow rotates a TIFF itself, and swaps its sides."""
    if layout.format != "TIFF":
        return header, layout.orientation if 1 <= layout.orientation <= 8 else 1
    tags = getattr(image, "tag_v2", {})
    orientation = tags.get(_ORIENTATION, 1)
    if orientation not in range(1, 9):
        return header, 1
    return header._replace(width=int(tags[_WIDTH]), height=int(tags[_HEIGHT])), orientation


def is_deep(data: bytes, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether a file is a gray image of more than 8 bits, as far as its header can be read."""
    try:
        layout = layout_of(data, limits)
        with _guarded(), quiet_decoders(), _open(layout) as image:
            return _is_deep(image.mode) or is_deep_with_alpha(layout.opened)
    except Unreadable:
        return False


def is_deep_color(data: bytes, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether a file is a color image of 16 bits, of which the upper 8 are kept."""
    try:
        layout = layout_of(data, limits)
        with _guarded(), quiet_decoders(), _open(layout) as image:
            bits = layout.opened[24] if layout.format == "PNG" else getattr(image, "tag_v2", {}).get(_BITS, (8,))[0]
            return bits == 16 and image.mode in ("RGB", "RGBA")
    except Unreadable:
        return False


def check_header(header: Header, limits: Limits = DEFAULT_LIMITS) -> None:
    """Check the size of an image.

    Raises:
        Unreadable: With reason side, bomb:pixels or aspect.
    """
    width, height = header.width, header.height
    size = f"{width} x {height} pixels"
    if min(width, height) < 1:
        raise Unreadable("broken", size)
    if max(width, height) > limits.max_side:
        raise Unreadable("side", f"{size}, the limit is data.limits.max_side={limits.max_side}")
    if width * height > limits.max_pixels:
        raise Unreadable("bomb:pixels", f"{size}, the limit is data.limits.max_pixels={limits.max_pixels}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Unreadable("aspect", f"{size}, the limit is data.limits.max_aspect={limits.max_aspect:g}")


def _check_cost(header: Header, layout: Layout, limits: Limits, data: bytes) -> None:
    pixels = header.width * header.height
    if layout.scans > limits.max_scans:
        raise Unreadable("bomb:scans", f"{layout.scans} scans, the limit is data.limits.max_scans={limits.max_scans}")
    if layout.scans > 1 and layout.scans * pixels > limits.max_scan_pixels:
        found = f"{layout.scans} scans of {pixels} pixels"
        raise Unreadable("bomb:scans", f"{found}, the limit is data.limits.max_scan_pixels={limits.max_scan_pixels}")
    memory = _memory(header, layout, data)
    if memory > limits.max_memory:
        raise Unreadable(
            "bomb:memory",
            f"{header.width} x {header.height} {header.mode} pixels take {memory} bytes to decode; the limit is "
            f"data.limits.max_memory={limits.max_memory}, within data.limits.max_pixels={limits.max_pixels}",
        )


def _memory(header: Header, layout: Layout, data: bytes) -> int:
    """Peak memory of decoding in bytes: the file, copies of it, the decoder's image and the result."""
    pixels = header.width * header.height
    own = 0 if _is_streamed(header, layout) else _HELD.get(header.mode, 4)
    copied = len(layout.opened) if layout.opened is not data or layout.format == "WEBP" else 0
    return (3 + own) * pixels + layout.held + len(data) + copied


def _is_streamed(header: Header, layout: Layout) -> bool:
    """Whether the decoder holds no image of its own."""
    return bool(layout.strips) or _is_direct(header, layout)


def _is_direct(header: Header, layout: Layout) -> bool:
    """Whether a decoder of torchvision gives the result directly."""
    if layout.format == "WEBP":
        return layout.still and header.mode == "RGB"
    return layout.format == "JPEG" and header.mode in ("RGB", "L")


@contextmanager
def _guarded() -> Iterator[None]:
    """A context that converts warnings and any exception of decoders to `Unreadable`."""
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
        return "bomb:pixels"
    cut = isinstance(error, EOFError) or any(word in str(error).lower() for word in ("truncated", "incomplete"))
    return "truncated" if cut else "broken"


def _open(layout: Layout) -> Image.Image:
    try:
        return Image.open(io.BytesIO(layout.opened), formats=(layout.format,))
    except UnidentifiedImageError as error:
        raise Unreadable("format", f"cannot be opened as {layout.format}") from error


def _header(image: Image.Image) -> Header:
    return Header(*image.size, format=image.format or "", mode=image.mode)


def _pixels(
    data: bytes, layout: Layout, header: Header, image: Image.Image, window: IntensityWindow
) -> UInt8[Tensor, "3 h w"]:
    if _is_direct(header, layout):
        return _direct(data, layout)
    result = np.empty((header.height, header.width, 3), dtype=np.uint8)
    rows_of = _alpha_rows if is_deep_with_alpha(layout.opened) else partial(_rows, data)
    top = 0
    for rows in rows_of(layout, header, image, window):
        result[top : top + len(rows)] = rows
        top += len(rows)
    if top != header.height:
        raise Unreadable("broken", f"{top} rows of pixels, {header.height} in the header")
    return torch.from_numpy(result).permute(2, 0, 1)


def _rows(
    data: bytes, layout: Layout, header: Header, image: Image.Image, window: IntensityWindow
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    if layout.strips:
        bands = png_strips(layout.opened, layout.strips)
    elif layout.format == "WEBP" and layout.still:
        bands = _webp_bands(data)
    else:
        bands = _bands(image, header)
    inverted = layout.format == "TIFF" and _white_is_zero(image, layout)
    render = _deep_renderer(image, header, window)
    for band in bands:
        rows = _rgb(band) if render is None else np.repeat(render(band)[:, :, None], 3, axis=2)
        yield 255 - rows if inverted else rows


def _alpha_rows(
    layout: Layout, header: Header, _: Image.Image, window: IntensityWindow
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Rows of a PNG of 16-bit gray values with alpha."""

    def bands() -> Iterator[np.ndarray]:
        image = Image.open(io.BytesIO(as_bytes(layout.opened)), formats=("PNG",))
        return map(np.asarray, _bands(image, header))

    gray = to_gray(window, 16, lambda: map(deep_values, bands()))
    for band in bands():
        yield _rgb(Image.fromarray(np.dstack([gray(deep_values(band)), band[..., 2]]), "LA"))


def _direct(data: bytes, layout: Layout) -> UInt8[Tensor, "3 h w"]:
    """By torchvision: half as much memory and 1.5 to 2 times as fast as Pillow.

    Never CMYK, which it reads without Adobe's inversion.
    """
    if layout.format == "JPEG":
        return _tensor(decode_jpeg(_buffer(data), mode=ImageReadMode.RGB))
    return _tensor(decode_webp(_buffer(data), mode=ImageReadMode.RGB))


def _buffer(data: bytes) -> UInt8[Tensor, "_n"]:
    return torch.frombuffer(data, dtype=torch.uint8)  # without a copy, since no decoder writes to it


def _tensor(found: Tensor | list[Tensor]) -> UInt8[Tensor, "c h w"]:
    assert isinstance(found, Tensor)  # a list only for a list of files
    return found


def _white_is_zero(image: Image.Image, layout: Layout) -> bool:
    """Whether Pillow does not invert the pixels of this TIFF: it inverts those of at most 8 bits only."""
    tags = getattr(image, "tag_v2", {})
    return layout.inverted or (_is_deep(image.mode) and tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO)


def _is_deep(mode: str) -> bool:
    return mode == "F" or mode == "I" or mode.startswith("I;16")


def _deep_renderer(
    image: Image.Image, header: Header, window: IntensityWindow
) -> Callable[[Image.Image], UInt8[np.ndarray, "h w"]] | None:
    """The conversion of bands of gray values that need one: of more than 8 bits, or signed."""
    tags = getattr(image, "tag_v2", {})
    bits, signed = (next(iter(tags.get(tag, (default,)))) for tag, default in ((_BITS, 16), (_SAMPLE_FORMAT, 1)))
    if not _is_deep(image.mode) and (signed, image.mode) != (_SIGNED, "L"):
        return None
    kind = {(1, 32): np.uint32, (_SIGNED, 8): np.int8}.get((signed, bits)) if image.mode in ("I", "L") else None

    def values(band: Image.Image) -> np.ndarray:
        return np.asarray(band) if kind is None else np.asarray(band).view(kind)

    is_unsigned = image.mode.startswith("I;16") or header.format == "PNG"
    gray = to_gray(window, bits if is_unsigned else 0, lambda: map(values, _bands(image, header)))
    return lambda band: gray(values(band))


def _bands(image: Image.Image, header: Header) -> Iterator[Image.Image]:
    """Pillow's image in horizontal bands: converting it as a whole would take several times its memory."""
    image.load()
    if image.size != (header.width, header.height):
        raise Unreadable("broken", f"found {image.size} pixels, {header.width} x {header.height} in the header")
    rows = max(1, _BAND // header.width)
    if rows >= header.height:
        yield image
        return
    for top in range(0, header.height, rows):
        yield image.crop((0, top, header.width, min(header.height, top + rows)))


def _webp_bands(data: bytes) -> Iterator[Image.Image]:
    pixels = _tensor(decode_webp(_buffer(data))).permute(1, 2, 0).numpy()
    rows = max(1, _BAND // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        yield Image.fromarray(pixels[top : top + rows])


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    mode = image.mode
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _over_gray(image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _over_gray(image: Image.Image) -> Image.Image:
    ground = Image.new("RGB", image.size, _GRAY)
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _upright(pixels: UInt8[Tensor, "3 h w"], turned: int) -> UInt8[Tensor, "3 _h _w"]:
    """Undo one of the eight EXIF orientations; any other number counts as upright."""
    if turned in (5, 6, 7, 8):
        pixels = pixels.mT
    axes = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(turned, ())
    return _flipped(pixels, axes) if axes else pixels


def _flipped(pixels: UInt8[Tensor, "3 h w"], axes: tuple[int, ...]) -> UInt8[Tensor, "3 h w"]:
    """A flipped copy of a small image; a large one is flipped in place, since a copy would double its memory."""
    if pixels.numel() <= 3 * _BAND:
        return pixels.flip(axes)
    for axis in axes:
        half = pixels.shape[axis] // 2
        step = max(1, _BAND * pixels.shape[axis] // pixels[0].numel())
        for start in range(0, half, step):
            end = min(half, start + step)
            front = pixels.narrow(axis, start, end - start)
            back = pixels.narrow(axis, pixels.shape[axis] - end, end - start)
            kept = front.flip(axis)
            front.copy_(back.flip(axis))
            back.copy_(kept)
    return pixels
