"""Gray values of every depth have one documented result, with and without an intensity window."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ssl_lightning.data import UncuratedImages
from ssl_lightning.data.decode import Unreadable, decode

SHAPE = (6, 8)
RAMP = np.linspace(0, 1, 48).reshape(SHAPE)
TYPES = {1: "u", 2: "i", 3: "f"}


def tiff(values, bits, kind=1, photometric=1, order="<", big=False):
    """An uncompressed TIFF of one strip, written by hand: `values` are bytes."""
    height, width = SHAPE
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 0)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(values)), (339, 3, kind)]
    entry = "HHQ" if big else "HHI"
    size = 8 + 20 * len(tags) + 8 + 16 if big else 8 + 2 + 12 * len(tags) + 4
    head = {"<": b"II", ">": b"MM"}[order]
    if big:
        head += struct.pack(f"{order}HHHQQ", 43, 8, 0, 16, len(tags))
    else:
        head += struct.pack(f"{order}HIH", 42, 8, len(tags))
    for tag, field, value in tags:
        value = size if tag == 273 else value
        room = 8 if big else 4
        content = struct.pack(order + {3: "H", 4: "I"}[field], value).ljust(room, b"\0")
        head += struct.pack(order + entry, tag, field, 1) + content
    return head + bytes(size - len(head)) + values


def packed(bits):
    """The ramp in unsigned values of some bits, each row padded to bytes; and the values."""
    levels = np.rint(RAMP * (2**bits - 1)).astype(np.uint32)
    rows = ["".join(f"{value:0{bits}b}" for value in row).ljust(-(-SHAPE[1] * bits // 8) * 8, "0") for row in levels]
    return b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows), levels


def gray(data, window=None):
    pixels = decode(data, window=window).numpy()
    assert (pixels == pixels[:1]).all()  # three equal channels
    return pixels[0]


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_unsigned_values_span_black_to_white_at_every_depth(bits, photometric):
    data, levels = packed(bits)
    found = gray(tiff(data if bits != 16 else levels.astype("<u2").tobytes(), bits, photometric=photometric))
    expected = np.rint(levels * (255 / (2**bits - 1)))
    assert np.abs(found - (expected if photometric else 255 - expected)).max() <= (bits == 12)
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(("kind", "bits"), [(2, 8), (2, 16), (1, 32), (2, 32), (3, 32)])
def test_other_values_need_a_window_and_are_inverted_too(kind, bits, photometric, order, big):
    low, high = (-100, 100) if kind != 1 else (3_000_000_000, 4_000_000_000)
    if bits == 8:
        low, high = -100, 27
    values = low + RAMP * (high - low)
    dtype = np.dtype(f"{order}{TYPES[kind]}{bits // 8}")
    data = tiff((values if kind == 3 else np.rint(values)).astype(dtype).tobytes(), bits, kind, photometric, order, big)
    is_unsupported = (order, kind, bits) == (">", 1, 32) or (kind, bits, photometric) == (2, 8, 0)
    if is_unsupported or (big and order == ">"):  # Pillow opens none of these
        with pytest.raises(Unreadable):
            gray(data, (float(low), float(high)))
        return
    with pytest.raises(Unreadable, match=r"\(depth\).*data.intensity_window"):
        gray(data)
    for window in ((float(low), float(high)), "minmax"):
        found = gray(data, window)
        expected = np.rint(RAMP * 255)
        assert np.abs(found.astype(float) - (expected if photometric else 255 - expected)).max() <= 2


def png(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def test_a_window_keeps_what_the_full_range_loses():
    deep = (1024 + np.rint(RAMP * 400)).astype(np.uint16)
    assert len(np.unique(gray(png(deep)))) <= 3
    found = gray(png(deep), (1024.0, 1424.0))
    assert np.array_equal(found, np.rint((deep.astype(float) - 1024) * 255 / 400))
    assert (gray(png(deep), (1100.0, 1200.0))[0, 0], gray(png(deep), (1100.0, 1200.0))[-1, -1]) == (0, 255)
    assert np.array_equal(gray(png(deep), "minmax"), found)
    low, high = np.percentile(deep, (1, 99))
    expected = np.rint(((deep - low) / (high - low)).clip(0, 1) * 255)
    assert np.abs(gray(png(deep), "percentile") - expected).max() <= 1


def test_a_window_leaves_images_of_8_bits_and_color_alone():
    for image in (np.rint(RAMP * 100).astype(np.uint8), np.rint(np.stack([RAMP] * 3, 2) * 99).astype(np.uint8)):
        for window in ((0.0, 10.0), "minmax", "percentile"):
            assert np.array_equal(decode(png(image), window=window).numpy(), decode(png(image)).numpy())


@pytest.mark.parametrize("window", ["minmax", "percentile"])
def test_constant_and_nan_images_are_defined(window):
    constant = np.full(SHAPE, 7, dtype=np.uint16)
    assert (gray(png(constant), window) == 0).all()
    values = (RAMP * 3).astype("<f4")
    values[0, 0], values[0, 1] = np.nan, np.inf
    found = gray(tiff(values.tobytes(), 32, 3), window)
    assert (found[0, 0], found[0, 1], found[-1, -1]) == (0, 255, 255)
    assert (gray(tiff(np.full(SHAPE, np.nan, "<f4").tobytes(), 32, 3), window) == 0).all()


@pytest.mark.parametrize("window", [(5.0, 5.0), (9.0, 1.0), (0.0, float("nan")), (0.0, float("inf"))])
def test_an_impossible_window_is_rejected(window):
    with pytest.raises(ValueError, match=r"found data.intensity_window=.*; expected .low, high. with low below high"):
        UncuratedImages(path="nowhere", intensity_window=window)


@pytest.mark.parametrize("in_memory", [False, True])
def test_deep_images_that_lose_their_levels_are_reported(folder, in_memory):
    deep = {f"{n}.png": png((1024 + np.rint(RAMP * 400)).astype(np.uint16)) for n in range(5)}
    odd = {} if in_memory else {"x.png": png(np.zeros((3, 3), np.uint8))}
    path = str(folder(deep | odd))
    (report,) = UncuratedImages(path=path, probe_sets={}).source_reports
    (note,) = report.notes
    assert note.startswith("gray images of more than 8 bits come out with 3 of 256 levels, 4 to 6: give their range")
    assert note in report.line()
    (report,) = UncuratedImages(path=path, probe_sets={}, intensity_window=(1024.0, 1424.0)).source_reports
    assert report.notes == []
    masks = folder({f"{n}.png": png(np.where(RAMP > 0.5, 65535, 0).astype(np.uint16)) for n in range(3)}, "masks")
    assert UncuratedImages(path=str(masks), probe_sets={}).source_reports[0].notes == []
    whole = str(folder({"0.png": png(np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32))}, "whole"))
    assert UncuratedImages(path=whole, probe_sets={}).source_reports[0].notes == []


@pytest.mark.parametrize(("kind", "ending"), [("TIFF", "tif"), ("GIF", "gif"), ("WEBP", "webp")])
def test_pages_that_are_left_out_are_counted(kind, ending, folder, tar):
    def several(count):
        stream = io.BytesIO()
        frames = [Image.fromarray(np.full((8, 8, 3), 40 * n + 5, np.uint8)) for n in range(count)]
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
        return stream.getvalue()

    files = {f"{n}.{ending}": several(n) for n in (1, 3, 4)}
    for path in (folder(files), tar(files.items())):
        (report,) = UncuratedImages(path=str(path), probe_sets={}).source_reports
        (note,) = report.notes
        assert f"2 files have several pages or frames ({path}/3.{ending}): the first is read, 5 are left out" in note


def png_of(shape, color, lines):
    """A PNG of 16 bits from its rows with their filters."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", shape[1], shape[0], 16, color, 0, 0, 0)
    parts = (chunk(b"IHDR", size), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_alpha(levels, alpha, filtered):
    """A PNG of 16-bit gray values with alpha, written by hand; `filtered` is the filter of its rows."""
    rows = np.stack([levels, alpha], 2).astype(">u2").reshape(len(levels), -1).view(np.uint8).astype(int)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    before = np.hstack([np.zeros_like(rows[:, :4]), rows[:, :-4]])
    content = {0: rows, 1: rows - before, 2: rows - above, 3: rows - (above + before) // 2}[filtered] % 256
    lines = b"".join(bytes([filtered, *row]) for row in content.tolist())
    return png_of(levels.shape, 4, lines)


def color_png(values):
    rows = np.repeat(values[:, :, None], 3, 2).astype(">u2").reshape(len(values), -1).view(np.uint8)
    return png_of(values.shape, 2, b"".join(b"\0" + row.tobytes() for row in rows))


def color_tiff(values):
    head = tiff(np.repeat(values[:, :, None], 3, 2).astype("<u2").tobytes(), 16, photometric=2)
    one, three = (struct.pack("<HHII", 277, 3, 1, samples) for samples in (1, 3))
    bits = struct.pack("<HHII", 258, 3, 1, 16), struct.pack("<HHII", 258, 3, 3, len(head))
    return head.replace(one, three).replace(*bits) + struct.pack("<HHH", 16, 16, 16)


@pytest.mark.parametrize("filtered", [0, 1, 2, 3])
@pytest.mark.parametrize("window", [None, (1024.0, 1424.0), "minmax", "percentile"])
def test_gray_values_with_alpha_are_those_without(filtered, window):
    deep = (1024 + np.rint(RAMP * 400)).astype(np.uint16)
    opaque = with_alpha(deep, np.full(SHAPE, 65535), filtered)
    assert np.array_equal(gray(opaque, window), gray(png(deep), window))
    half = gray(with_alpha(deep, np.where(RAMP > 0.5, 65535, 0), filtered), window)
    assert np.array_equal(half, np.where(RAMP > 0.5, gray(png(deep), window), 128))


def test_gray_values_with_alpha_that_lose_their_levels_are_reported(folder):
    deep = (1024 + np.rint(RAMP * 400)).astype(np.uint16)
    path = str(folder({f"{n}.png": with_alpha(deep, np.full(SHAPE, 65535), 0) for n in range(5)}))
    (report,) = UncuratedImages(path=path, probe_sets={}).source_reports
    assert report.notes[0].startswith("gray images of more than 8 bits come out with 3 of 256 levels, 4 to 6")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("highest", "is_reported"), [(1424, True), (65535, False)])
def test_color_of_16_bits_that_loses_its_levels_is_reported(kind, highest, is_reported, folder):
    values = np.rint(RAMP * highest).astype(np.uint16)
    content = color_png(values) if kind == "PNG" else color_tiff(values)
    path = str(folder({f"{n}.{kind.lower()}": content for n in range(5)}))
    (report,) = UncuratedImages(path=path, probe_sets={}).source_reports
    lost = "color images of 16 bits keep their upper 8 bits, 0 to 5 of 256 levels"
    assert [note.partition(":")[0] for note in report.notes] == ([lost] if is_reported else [])
    (report,) = UncuratedImages(path=path, probe_sets={}, intensity_window="minmax").source_reports
    assert (lost in report.notes[0]) == is_reported
    assert report.notes[0].endswith(f"data.intensity_window {UNUSED} 5 files examined")


UNUSED = "has no effect: no gray image of more than 8 bits in"


def test_a_window_over_images_of_8_bits_is_reported(folder):
    path = str(folder({f"{n}.png": png(np.rint(RAMP * 100).astype(np.uint8)) for n in range(20)}))
    (report,) = UncuratedImages(path=path, probe_sets={}, intensity_window=(0.0, 9.0)).source_reports
    assert report.notes == [f"data.intensity_window {UNUSED} 16 files examined"]
    assert UncuratedImages(path=path, probe_sets={}).source_reports[0].notes == []


def test_a_window_that_is_too_wide_is_reported_as_such(folder):
    path = str(folder({f"{n}.png": png((1024 + np.rint(RAMP * 400)).astype(np.uint16)) for n in range(5)}))
    (report,) = UncuratedImages(path=path, probe_sets={}, intensity_window=(0.0, 65535.0)).source_reports
    assert "narrow data.intensity_window=(0.0, 65535.0) to their range [low, high], or percentile" in report.notes[0]
