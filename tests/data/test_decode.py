"""The guarded decoder: by content and not by name, nothing but an image or `Unreadable`, whatever the bytes."""

import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import textwrap
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ssl_lightning.data.decode import Header, Limits, Unreadable, _guarded, _header, _open, check_header, decode
from ssl_lightning.data.layout import layout_of

PIXELS = np.stack(np.meshgrid(np.linspace(0, 255, 36), np.linspace(255, 0, 24)), 2).astype(np.uint8)
PIXELS = np.concatenate([PIXELS, np.full((24, 36, 1), 90, np.uint8)], 2)
IMAGE = Image.fromarray(PIXELS)


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def header_of(data: bytes) -> Header:
    with _guarded(), _open(layout_of(data, Limits())) as image:
        return _header(image)


def pixels_of(data: bytes) -> np.ndarray:
    return decode(data).permute(1, 2, 0).numpy()


def png(width: int, height: int, bits: int = 1, color: int = 0, rows: bytes = b"") -> bytes:
    """A PNG by hand, so that its header can claim anything."""

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows, 9)) + part(b"IEND", b"")


def black_png(width: int, height: int) -> bytes:
    """A bilevel PNG that really holds so many pixels, in a few thousand bytes."""
    return png(width, height, rows=bytes((1 + (width + 7) // 8) * height))


def webp_canvas(side: int) -> bytes:
    """An animated WebP with a canvas of this side and no frame in it."""
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (side - 1).to_bytes(3, "little") * 2
    body = b"WEBP" + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


# What comes out


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_every_format_gives_its_pixels(kind):
    found = decode(file_of(IMAGE, kind, **{"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})))
    assert found.dtype == torch.uint8
    assert found.shape == (3, 24, 36)
    error = np.abs(found.permute(1, 2, 0).numpy().astype(int) - PIXELS)
    assert error.max() == 0 or {"JPEG": 8, "GIF": 40}[kind] > error.mean()


def test_a_plain_jpeg_is_what_pillow_reads():
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    for image in (IMAGE, Image.fromarray(noise), IMAGE.convert("L")):
        for options in ({}, {"progressive": True}, {"quality": 30, "subsampling": 2}):
            data = file_of(image, "JPEG", **options)
            reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
            assert np.abs(pixels_of(data) - reference).max() <= 1  # two builds of one library may round apart


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_every_mode_without_transparency_is_its_own_rgb(mode):
    image = IMAGE.convert(mode)
    assert np.array_equal(pixels_of(file_of(image, "PNG")), np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb_as_pillow_does_it():
    data = file_of(IMAGE.convert("CMYK"), "JPEG", quality=95)
    assert header_of(data).mode == "CMYK"
    assert np.array_equal(pixels_of(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(pixels_of(data).astype(int) - PIXELS).mean() < 8


def test_transparency_lies_over_gray():
    clear = Image.new("RGBA", (8, 8), (250, 10, 10, 0))
    half = Image.new("RGBA", (8, 8), (250, 10, 10, 128))
    assert (pixels_of(file_of(clear, "PNG")) == 128).all()
    assert np.abs(pixels_of(file_of(half, "PNG"))[0, 0].astype(int) - [189, 69, 69]).max() <= 1
    assert (pixels_of(file_of(clear.convert("LA"), "PNG")) == 128).all()
    assert (pixels_of(file_of(clear, "WEBP", lossless=True)) == 128).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_the_clear_entry_of_a_palette_lies_over_gray(kind):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    image.putpixel((0, 0), 0)
    pixels = pixels_of(file_of(image, kind, transparency=1))
    assert pixels[0, 0].tolist() == [9, 9, 9]
    assert pixels[4, 4].tolist() == [128, 128, 128]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    deep = (np.arange(24 * 36).reshape(24, 36) * 75 + 20).astype(np.uint16)
    pixels = pixels_of(file_of(Image.fromarray(deep), kind))
    assert np.array_equal(pixels[..., 0], np.round(deep / 257).astype(np.uint8))
    assert (pixels == pixels[..., :1]).all()
    assert pixels.max() > 250
    assert len(np.unique(pixels)) > 200


def test_sixteen_bit_color_is_scaled():
    row = b"\0" + struct.pack(">3H", 65535, 32768, 257)
    assert np.abs(pixels_of(png(1, 1, 16, 2, row)).astype(int) - [255, 128, 1]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_all_eight_orientations_come_out_upright(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(IMAGE, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.abs(pixels_of(data).astype(int) - upright).max() <= 1
    assert upright.shape[:2] == ((36, 24) if orientation > 4 else (24, 36))


def test_broken_or_impossible_exif_does_not_lose_a_image():
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"):
        assert decode(file_of(IMAGE, "JPEG", exif=exif)).shape == (3, 24, 36)
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode(file_of(IMAGE, "JPEG", exif=exif)).shape == (3, 24, 36)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_comes(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert pixels_of(data)[3, 3].tolist() == [255, 0, 0]


def test_the_name_of_the_content_does_not_matter_only_the_bytes():
    assert header_of(file_of(IMAGE, "GIF")) == Header(36, 24, "GIF", "P")
    assert header_of(file_of(IMAGE, "JPEG")) == Header(36, 24, "JPEG", "RGB")


def test_a_camera_s_image_with_more_images_behind_it_is_its_first():
    data = file_of(IMAGE, "MPO", save_all=True, append_images=[IMAGE.rotate(180)])
    assert header_of(data).format == "MPO"
    assert np.array_equal(pixels_of(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.skipif("SSL_LIGHTNING_DATA" not in os.environ, reason="SSL_LIGHTNING_DATA names no folder of image packs")
def test_real_images_are_what_pillow_reads():
    with tarfile.open(Path(os.environ["SSL_LIGHTNING_DATA"]) / "uncurated-000000.tar") as pack:
        files = [pack.extractfile(member).read() for member in pack.getmembers()[:400] if member.name.endswith(".jpg")]
    assert len(files) == 200
    for data in files:
        image = Image.open(io.BytesIO(data))
        if max(image.size) <= 50 * min(image.size):
            assert np.abs(pixels_of(data).astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


# What does not


TEXT = b"GET /cat.jpg HTTP/1.1 404 not found\n" * 20
JPEG = file_of(IMAGE, "JPEG")
PNG = file_of(IMAGE, "PNG")
FLOATS = file_of(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
DEEP = file_of(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF")
PSD = b"8BPS" + struct.pack(">H6sHIIHH", 1, bytes(6), 3, 24, 36, 8, 3) + bytes(24 * 36 * 3 + 12)

REJECTED = {
    "nothing": (b"", "empty"),
    "one byte": (b"\xff", "format"),
    "zeros": (bytes(5000), "format"),
    "text": (TEXT, "format"),
    "a web page": (b"<!DOCTYPE html><html><body>Sorry</body></html>", "format"),
    "a vector image": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "format"),
    "PostScript": (file_of(IMAGE, "EPS"), "format"),
    "Photoshop": (PSD, "format"),
    "a document": (file_of(IMAGE, "PDF"), "format"),
    "an icon": (file_of(IMAGE, "ICO"), "format"),
    "a portable map": (file_of(IMAGE, "PPM"), "format"),
    "JPEG 2000": (file_of(IMAGE, "JPEG2000"), "format"),
    "Targa": (file_of(IMAGE, "TGA"), "format"),
    "half a JPEG": (JPEG[: len(JPEG) // 2], "truncated"),
    "a JPEG without its end": (JPEG[:-2], "truncated"),
    "the head of a JPEG": (JPEG[:60], "truncated"),
    "a gray JPEG cut off": (file_of(IMAGE.convert("L"), "JPEG")[:-40], "truncated"),
    "a CMYK JPEG cut off": (file_of(IMAGE.convert("CMYK"), "JPEG")[:-40], "truncated"),
    "half a PNG": (PNG[: len(PNG) // 2], "truncated"),
    "a PNG of no pixels": (png(64, 64), "truncated"),
    "a PNG with a wrong checksum of its header": (PNG[:29] + b"\0\0\0\0" + PNG[33:], "broken"),
    "half a GIF": (file_of(IMAGE, "GIF")[:-100], "truncated"),
    "half a bitmap": (file_of(IMAGE, "BMP")[:900], "truncated"),
    "half a TIFF": (file_of(IMAGE, "TIFF")[:900], "truncated"),
    "half a WebP": (file_of(IMAGE, "WEBP")[:80], "broken"),
    "a WebP without a frame": (webp_canvas(40), "broken"),
    "floating-point pixels": (FLOATS, "depth"),
    "integers of 32 bits": (DEEP, "depth"),
    "too long a line": (black_png(4000, 20), "aspect"),
    "too tall a line": (black_png(3, 400), "aspect"),
    "too long a side": (png(30_000, 1_000), "side"),
    "100 million pixels": (png(10_000, 10_000), "bomb:pixels"),
    "390 million pixels": (png(19_748, 19_748), "bomb:pixels"),
    "a JPEG that claims 65000 x 65000": (JPEG.replace(struct.pack(">HH", 24, 36), b"\xfd\xe8\xfd\xe8"), "bomb:pixels"),
    "a GIF that claims 65535 x 65535": (b"GIF89a\xff\xff\xff\xff\0\0\0" + file_of(IMAGE, "GIF")[13:], None),
    "a WebP that claims 16383 x 16383": (webp_canvas(16_383), None),
}


@pytest.mark.parametrize("what", REJECTED)
def test_it_rejects(what):
    data, reason = REJECTED[what]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with pytest.raises(Unreadable) as caught:
            decode(data)
    assert not heard
    assert "\n" not in str(caught.value)
    assert " at 0x" not in str(caught.value)  # the same file, the same message
    if reason:
        assert caught.value.reason == reason


def test_the_corpus_is_large_enough_and_knows_every_reason():
    reasons = {reason for _, reason in REJECTED.values()} - {None}
    assert reasons == {"empty", "format", "truncated", "broken", "depth", "aspect", "side", "bomb:pixels"}
    assert len(REJECTED) >= 30


def test_limits_are_the_callers():
    assert decode(PNG, Limits(max_pixels=24 * 36, max_side=36, max_aspect=1.5)).shape == (3, 24, 36)
    for limits, reason in (
        (Limits(max_pixels=24 * 36 - 1), "bomb:pixels"),
        (Limits(max_side=35), "side"),
        (Limits(max_aspect=1.4), "aspect"),
    ):
        with pytest.raises(Unreadable) as caught:
            decode(PNG, limits)
        assert caught.value.reason == reason
        with pytest.raises(Unreadable):
            check_header(header_of(PNG), limits)


def test_a_probe_reads_the_header_and_no_pixels():
    assert header_of(png(9000, 8000)) == Header(9000, 8000, "PNG", "1")
    with pytest.raises(Unreadable) as caught:
        header_of(TEXT)
    assert caught.value.reason == "format"


def test_the_reason_survives_the_way_from_a_worker():
    with pytest.raises(Unreadable) as caught:
        decode(TEXT)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, str(copy)) == (caught.value.reason, str(caught.value))
    assert isinstance(copy, ValueError)


def test_bombs_do_not_fill_the_memory(tmp_path):
    bombs = {
        "100": black_png(10_000, 10_000),
        "390": black_png(19_748, 19_748),
        "jpeg": REJECTED["a JPEG that claims 65000 x 65000"][0],
        "gif": REJECTED["a GIF that claims 65535 x 65535"][0],
        "webp": webp_canvas(16_383),
    }
    assert len(bombs["100"]) < 20_000
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    child = """
        import pathlib, resource, sys
        from ssl_lightning.data.decode import Unreadable, decode
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = peak()
        for path in pathlib.Path(sys.argv[1]).iterdir():
            try:
                decode(path.read_bytes())
                sys.exit(path.name + " was decoded")
            except Unreadable:
                pass
        print(peak() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(child), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 100  # MiB


# Anything at all


SEEDS = [
    file_of(IMAGE, "JPEG", quality=60),
    file_of(IMAGE, "JPEG", progressive=True),
    file_of(IMAGE.convert("CMYK"), "JPEG"),
    file_of(IMAGE.convert("L"), "JPEG"),
    PNG,
    file_of(IMAGE.convert("P"), "PNG", transparency=3),
    file_of(Image.fromarray(np.arange(24 * 36, dtype=np.uint16).reshape(24, 36)), "PNG"),
    file_of(IMAGE, "WEBP"),
    file_of(IMAGE.convert("RGBA"), "WEBP", lossless=True),
    file_of(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(90)]),
    file_of(IMAGE, "BMP"),
    file_of(IMAGE, "TIFF", compression="tiff_lzw"),
]
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(SEEDS), CHANGES, st.floats(0, 1), st.booleans())
def test_a_damaged_file_is_a_image_or_unreadable(seed, changes, kept, cut):
    data = bytearray(seed)
    for place, value in changes:
        data[int(place * len(data))] = value
    image_or_unreadable(bytes(data[: int(kept * len(data))] if cut else data))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([seed[:16] for seed in SEEDS] + [b""]), st.binary(max_size=300))
def test_noise_behind_a_true_signature_is_a_image_or_unreadable(signature, noise):
    image_or_unreadable(signature + noise)


def image_or_unreadable(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = decode(data, Limits(max_pixels=1_000_000))
        except Unreadable:
            return
    assert image.dtype == torch.uint8
    assert image.ndim == 3
    assert image.shape[0] == 3
    assert image.numel() > 0
