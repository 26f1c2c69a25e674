"""Image files of every format that is read, damaged at random, and files that are made to cost time or memory."""

import io
import os
import random
import shutil
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

IMAGES = 184
HOSTILE = 8
BOMBS = 12
"""How many files `bombs` makes; it takes a second, and only some faults need them."""
LARGE = {"rgba.png", "text.png"}
"""Those that may be decoded, if that takes little: 49 megapixels with transparency, 20 MB of text in an image."""
_SIDES = (24, 40)


def _noise(draw: random.Random, mode: str = "RGB") -> Image.Image:
    """A small image with structure, so that it compresses, and noise, so that it does not vanish."""
    width, height = draw.randint(*_SIDES), draw.randint(*_SIDES)
    pixels = np.random.default_rng(draw.randrange(2**32)).integers(0, 255, (height, width, 4), dtype=np.uint8)
    pixels[: height // 2] = draw.randrange(255)
    image = Image.fromarray(pixels, "RGBA")
    if mode in ("I;16", "I", "F"):
        deep = pixels[..., 0].astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        return Image.fromarray(deep * (257 if mode == "I;16" else 1))
    return image.convert("RGB").convert(mode) if mode not in ("RGBA", "LA", "PA") else image.convert(mode)


KINDS = [
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {"quality": 90}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("GIF", "P", {}),
    ("GIF", "P", {"animated": True}),
    ("WEBP", "RGB", {"animated": True}),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "RGB", "CMYK", "I;16", "F")),
    *(("TIFF", "RGB", {"compression": how}) for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
]


def whole_file(draw: random.Random) -> bytes:
    """A good file of some format and mode."""
    kind, mode, options = draw.choice(KINDS)
    options = dict(options)
    if options.pop("animated", False):
        options |= {"save_all": True, "append_images": [_noise(draw, mode).resize((24, 24)) for _ in range(2)]}
    file = io.BytesIO()
    image = _noise(draw, mode)
    (image.resize((24, 24)) if "save_all" in options else image).save(file, kind, **options)
    return file.getvalue()


def damaged(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """What was done to a file, and the file."""
    data, size = bytearray(content), len(content)
    how = draw.choice(("bits", "header", "cut", "hole", "repeat", "insert", "splice", "numbers"))
    begin = draw.randrange(size)
    end = min(size, begin + draw.randint(1, max(1, size // 4)))
    if how == "bits":
        for _ in range(draw.randint(1, 16)):
            data[draw.randrange(size)] ^= 1 << draw.randrange(8)
    elif how == "header":
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(min(size, 64))] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    elif how == "cut":
        del data[begin:]
    elif how == "hole":
        del data[begin:end]
    elif how == "repeat":
        data[begin:begin] = data[begin:end] * draw.randint(1, 20)
    elif how == "insert":
        data[begin:begin] = draw.randbytes(draw.randint(1, 200))
    elif how == "splice":
        data[begin:] = whole_file(draw)[begin:]
    else:
        place = draw.randrange(max(1, size - 4))
        value = draw.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
        data[place : place + 4] = struct.pack(draw.choice("<>") + "I", value)
    return how, bytes(data)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, color: int, rows: bytes, between: bytes = b"") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + between + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _zeros(size: int) -> bytes:
    """So many zeros, packed, without holding them."""
    packer, block = zlib.compressobj(1), bytes(1 << 20)
    packed = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join(packed) + packer.compress(bytes(size & ((1 << 20) - 1))) + packer.flush()


@lru_cache(1)
def bombs() -> dict[str, bytes]:
    """Files that cost time or memory, or are no image, by name; all but those of `LARGE` are unreadable."""
    draw = random.Random(0)
    jpeg = io.BytesIO()
    _noise(draw).resize((512, 512)).save(jpeg, "JPEG", progressive=True)
    scan = jpeg.getvalue()[jpeg.getvalue().rindex(b"\xff\xda") : -2]
    small = zlib.compress(bytes(33 * 97))
    texts = PngImagePlugin.PngInfo()
    texts.add_text("bomb", "a" * 20_000_000, zip=True)
    text = io.BytesIO()
    _noise(draw).save(text, "PNG", pnginfo=texts)
    return {
        "scans.jpg": jpeg.getvalue()[:-2] + scan * 1000 + b"\xff\xd9",
        "fill.jpg": jpeg.getvalue()[:2] + b"\xff" * 2_000_000 + jpeg.getvalue()[2:],
        "pixels.png": _png(60_000, 60_000, 0, _zeros(1 << 22)),
        "sides.png": _png(1, 2_000_000, 0, small),
        "rgba.png": _png(7000, 7000, 6, _zeros(7000 * 28_001)),
        "chunks.png": _png(32, 33, 2, small, _chunk(b"tEXt", b"a\0b") * 20_000),
        "text.png": text.getvalue(),
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" * 9,
        "half.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "gif.gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0\0\0,\0\0\0\0" + b"\xff" * 12,
    }


def given_cases() -> list[Path]:
    """Image files of the folder in SSL_LIGHTNING_CASES, more hostile ones."""
    folder = os.environ.get("SSL_LIGHTNING_CASES")
    kinds = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
    return sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in kinds) if folder else []


def image_folder(folder: Path, hostile: int, seed: int = 0) -> Path:
    """A folder of good images and of so many hostile ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw, kinds = random.Random(seed), [kind for kind in KINDS if kind[0] in ("JPEG", "PNG")][:3]
    names = [str(draw.randrange(10**9)).zfill(9) for _ in range(IMAGES + HOSTILE)]
    chosen = draw.sample(sorted(bombs().keys() - LARGE), hostile)
    for place, name in enumerate(names):
        if place < hostile:
            (folder / f"hostile-{name}-{chosen[place]}").write_bytes(bombs()[chosen[place]])
        else:
            kind, mode, options = kinds[place % len(kinds)]
            _noise(draw, mode).save(folder / f"good-{name}.jpg", kind, **options)
    return folder
