"""Files that are small and cost much: each is rejected at once with its reason, or decoded within the memory limit."""

import ctypes
import io
import os
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.data import Limits, UncuratedImages
from ssl_lightning.data.c_errors import quiet_decoders
from ssl_lightning.data.decode import Unreadable, decode
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.packs import open_labelled
from ssl_lightning.errors import UsageError

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8))


def file_of(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


JPEG, PNG, GIF = (file_of(IMAGE, kind) for kind in ("JPEG", "PNG", "GIF"))
WEBP = file_of(IMAGE, "WEBP", lossless=True)
PROGRESSIVE = file_of(IMAGE, "JPEG", progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]


def of_jpeg(inserted, at=2, data=JPEG):
    return data[:at] + inserted + data[at:]


def of_png(chunks, before=True):
    at = PNG.index(b"IDAT") - 4 if before else len(PNG) - 12
    return PNG[:at] + chunks + PNG[at:]


def of_webp(chunks):
    body = WEBP[8:] + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def of_gif(blocks):
    at = 13 + 3 * 256
    return GIF[:at] + blocks + GIF[at:]


def tiff(tags, tail=b""):
    """Little-endian, one directory; each tag has one 32-bit number, or a count and an offset."""
    entries = [
        struct.pack("<HHII", tag, 4, *(value if isinstance(value, tuple) else (1, value))) for tag, value in tags
    ]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + tail


def gray_tiff(*others):
    return [(256, 36), (257, 24), (258, 8), (262, 1), *others]


def run_lengths(width, height, runs):
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(runs), 0, 0, 14 + len(head)) + head + runs


TEXT = chunk(b"tEXt", b"a\0b")
REJECTED = {
    "1,000 scans": (of_jpeg(LAST_SCAN * 1000, -2, PROGRESSIVE), "bomb:scans"),
    "10,001 comments in a JPEG": (of_jpeg(b"\xff\xfe\0\x02" * 10_001), "bomb:chunks"),
    "10,001 comments between scans": (of_jpeg(b"\xff\xfe\0\x02" * 10_001, -2, PROGRESSIVE), "bomb:chunks"),
    "restart markers before a frame": (of_jpeg(b"\xff\xd0" * 10_001), "bomb:chunks"),
    "fill bytes before a segment": (of_jpeg(b"\xff" * 70_000), "bomb:fill"),
    "fill bytes in several runs": (of_jpeg((b"\xff" * 40_000 + b"\xfe\0\x02") * 2), "bomb:fill"),
    "bytes of no segment": (of_jpeg(b"x" * 70_000, JPEG.index(b"\xff\xdb")), "bomb:fill"),
    "escaped bytes of no segment": (of_jpeg(b"\xff\0" * 70_000), "bomb:fill"),
    "fill bytes after a scan": (of_jpeg(b"\xff" * 70_000, -2), "bomb:fill"),
    "fill bytes between scans": (of_jpeg((b"\xff" * 40_000 + b"\xfe\0\x02") * 2, -2, PROGRESSIVE), "bomb:fill"),
    "10,001 texts in a PNG": (of_png(TEXT * 10_001), "bomb:chunks"),
    "10,001 texts behind the pixels": (of_png(TEXT * 10_001, before=False), "bomb:chunks"),
    "10,001 empty chunks of pixels": (of_png(chunk(b"IDAT", b"") * 10_001), "bomb:chunks"),
    "10,001 chunks in a WebP": (of_webp(b"EXIF\0\0\0\0" * 10_001), "bomb:chunks"),
    "10,001 comments in a GIF": (of_gif(b"!\xfe\x01a\0" * 10_001), "bomb:chunks"),
    "a GIF comment of 2.6 MB": (of_gif(b"!\xfe" + (b"\xff" + b"a" * 255) * 10_001 + b"\0"), "bomb:chunks"),
    "bytes of no block in a GIF": (of_gif(b"x" * 70_000), "bomb:fill"),
    "a TIFF of 10,001 strips": (tiff(gray_tiff((273, (10_001, 8)), (278, 1))), "bomb:chunks"),
    "a TIFF of tiles of one pixel": (
        tiff([(256, 200), (257, 200), (258, 8), (262, 1), (322, 1), (323, 1), (324, 8), (325, 1)]),
        "bomb:chunks",
    ),
    "a TIFF with tags larger than the file": (tiff(gray_tiff((700, (1 << 30, 8)), (273, 8))), "bomb:metadata"),
    "a TIFF with a tile of 300 MB": (
        tiff([(256, 36), (257, 24), (258, 8), (259, 5), (262, 1), (322, 20_000), (323, 20_000), (324, 8), (325, 9)]),
        "bomb:memory",
    ),
    "a JPEG of 1,000 scans within a TIFF": (
        tiff(gray_tiff((259, 7), (273, 100), (278, 24), (279, 20_000)), bytes(100) + b"\xff\xda" * 9_000),
        "bomb:scans",
    ),
    "TIFF strips that overlap": (
        tiff([(256, 36), (257, 24), (258, 8), (259, 7), (262, 1), (273, (2, 8)), (278, 12), (279, (2, 8))]),
        None,
    ),
    "run lengths of 20 million pixels": (run_lengths(5000, 4000, b"\0\0" * 4000), "bomb:runs"),
    "3 MB of run lengths": (run_lengths(1000, 1000, b"\1\1" * 1_500_000), "bomb:runs"),
}


@pytest.mark.parametrize("what", REJECTED)
def test_it_is_rejected_at_once(what):
    data, reason = REJECTED[what]
    times = []
    for _ in range(2):
        begin = time.process_time()
        with pytest.raises(Unreadable) as caught:
            decode(data)
        times.append(time.process_time() - begin)
    assert min(times) < 0.2
    assert reason in (None, caught.value.reason)


def profile():
    return b"Photoshop 3.0\0" + (b"8BIM\4\4" + bytes(6)) * 5000


ACCEPTED = {
    "thousands of photoshop blocks": (of_jpeg((b"\xff\xed\xff\xff" + profile()[:65533].ljust(65533)) * 400), JPEG),
    "9,000 segments of Exif": (of_jpeg((b"\xff\xe1\x03\xe8Exif\0\0" + bytes(992)) * 9_000), JPEG),
    "a text that unpacks to 200 MB": (of_png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 1))), PNG),
    "a profile that unpacks to 200 MB": (of_png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200_000_000), 1))), PNG),
    "Exif of tags that overlap": (
        of_png(chunk(b"eXIf", b"II*\0\x08\0\0\0\x60\xea" + b"".join(
            struct.pack("<HHII", 1000 + n, 7, 300_000, 0) for n in range(60_000)
        ))),
        PNG,
    ),
    "9,000 comments in a GIF": (of_gif(b"!\xfe\x01a\0" * 4_000), GIF),
}  # fmt: skip


@pytest.mark.parametrize("what", ACCEPTED)
def test_metadata_cost_nothing_and_change_nothing(what):
    data, plain = ACCEPTED[what]
    begin = time.process_time()
    found = decode(data)
    assert time.process_time() - begin < 0.3
    assert torch.equal(found, decode(plain))


def test_hundred_scans_are_decoded_and_their_pixels_count():
    scans = PROGRESSIVE.count(b"\xff\xda")
    data = of_jpeg(LAST_SCAN * (100 - scans), -2, PROGRESSIVE)
    assert decode(data).shape == (3, 24, 36)
    for limits in (Limits(max_scans=99), Limits(max_scan_pixels=100 * 24 * 36 - 1)):
        with pytest.raises(Unreadable) as caught:
            decode(data, limits)
        assert caught.value.reason == "bomb:scans"
    assert decode(data, Limits(max_scan_pixels=100 * 24 * 36)).shape == (3, 24, 36)


def test_what_looks_like_a_scan_behind_a_jpeg_is_none():
    assert torch.equal(decode(PROGRESSIVE + b"\xff\xda" * 10_000), decode(PROGRESSIVE))


def test_more_pixels_need_more_memory_and_the_line_names_both():
    with pytest.raises(UsageError, match=r"data.limits.max_pixels=150000000.*data.limits.max_memory=300000000"):
        Limits(max_pixels=150_000_000)
    assert Limits(max_pixels=150_000_000, max_memory=450_000_000)
    with pytest.raises(UsageError, match="expected at least 1"):
        Limits(max_scans=0)
    with pytest.raises(UsageError, match="at most"):
        Limits(max_pixels=400_000_000, max_memory=2_000_000_000)
    with pytest.raises(Unreadable, match=r"max_memory=2592.*max_pixels=864") as caught:
        decode(file_of(IMAGE, "BMP"), Limits(max_pixels=864, max_memory=2592))
    assert caught.value.reason == "bomb:memory"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA"])
def test_a_png_in_strips_is_what_pillow_decodes(mode):
    noise = np.random.default_rng(1).integers(0, 256, (2100, 2000, 4), dtype=np.uint8)
    noise[:, :1000] //= 16  # some rows have other filters
    image = Image.fromarray(noise[..., :3] if mode in ("RGB", "P") else noise).convert(mode)
    options = {"transparency": 7} if mode in ("P", "L") else {}
    data = file_of(image, "PNG", compress_level=1, **options)
    whole = Image.open(io.BytesIO(data))
    whole.load()
    rgb = whole.convert("RGBA") if mode != "RGB" else whole
    if mode != "RGB":
        ground = Image.new("RGB", rgb.size, (128, 128, 128))
        ground.paste(rgb, mask=rgb.getchannel("A"))
        rgb = ground
    assert np.array_equal(decode(data).permute(1, 2, 0).numpy(), np.asarray(rgb))
    for damaged, reason in ((data[: len(data) // 2], "truncated"), (flipped(data, len(data) // 2), "broken")):
        with pytest.raises(Unreadable) as caught:
            decode(damaged)
        assert caught.value.reason == reason


def flipped(data, place):
    return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_large_image_is_turned_in_place(orientation):
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (1203, 1002, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(file_of(image, "BMP")), decode(file_of(image, "PNG", compress_level=1, exif=exif))
    transpose = {
        2: lambda a: a.flip(2), 3: lambda a: a.flip(1, 2), 4: lambda a: a.flip(1), 5: lambda a: a.mT,
        6: lambda a: a.mT.flip(2), 7: lambda a: a.mT.flip(1, 2), 8: lambda a: a.mT.flip(1),
    }  # fmt: skip
    assert torch.equal(found[1], transpose[orientation](found[0]))


def test_orientation_is_also_read_from_xmp_and_from_the_texts_of_imagemagick():
    xmp = b'<x tiff:Orientation="3"/>'
    turned = decode(PNG).flip(1, 2)
    assert torch.equal(decode(of_png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))), turned)
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)
    assert torch.equal(decode(of_png(chunk(b"iTXt", packed))), turned)
    exif = Image.Exif()
    exif[0x0112] = 3
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 44\n" + exif.tobytes().hex().encode())
    assert torch.equal(decode(of_png(chunk(b"zTXt", text))), turned)
    segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    data = of_jpeg(b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment)
    assert torch.equal(decode(data), decode(JPEG).flip(1, 2))


def test_sixteen_bits_with_white_as_zero_are_inverted():
    deep = (np.arange(24 * 36).reshape(24, 36) * 75).astype(np.uint16)
    for options in ({}, {"compression": "tiff_lzw"}):
        data = bytearray(file_of(Image.fromarray(deep), "TIFF", **options))
        place = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
        data[place] = 0
        assert np.array_equal(decode(bytes(data))[0].numpy(), 255 - np.round(deep / 257).astype(np.uint8))


def zeros_png(side, depth, color, channels):
    squeeze = zlib.compressobj(1)
    row = bytes((1 + side * channels * depth // 8) * 100)
    content = b"".join(squeeze.compress(row) for _ in range(side // 100)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_49_megapixels_are_decoded_within_300_mb_or_rejected(tmp_path):
    black = Image.new("RGB", (7000, 7000))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "png rgb": zeros_png(7000, 8, 2, 3),
        "png gray": zeros_png(7000, 8, 0, 1),
        "png rgba": zeros_png(7000, 8, 6, 4),
        "png deep": zeros_png(7000, 16, 0, 2),
        "jpeg rgb": file_of(black, "JPEG", exif=exif),
        "jpeg gray": file_of(black.convert("L"), "JPEG"),
        "webp lossy": file_of(black, "WEBP", method=0),
        "png deep color (rejected)": zeros_png(7000, 16, 2, 6),
        "jpeg progressive 4:4:4 (rejected)": file_of(black, "JPEG", progressive=True, subsampling=0),
        "webp lossless (rejected)": file_of(black, "WEBP", method=0, lossless=True),
        "tiff (rejected)": file_of(black, "TIFF", compression="tiff_lzw"),
        "bmp (rejected)": file_of(black, "BMP"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    child = """
        import io, pathlib, sys, time
        from PIL import Image
        from ssl_lightning.data.decode import Unreadable, decode

        for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
            small = io.BytesIO()
            Image.new("RGB", (8, 8)).save(small, kind)
            decode(small.getvalue())  # imports what it needs

        def megabytes(key):
            return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) / 1000

        for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            pathlib.Path("/proc/self/clear_refs").write_text("5")
            before = megabytes("VmRSS")
            data, reason = path.read_bytes(), ""
            begin = time.process_time()
            try:
                decode(data)
            except Unreadable as error:
                reason = error.reason
                assert time.process_time() - begin < 0.2, path.name
            assert ("rejected" in path.name) == (reason == "bomb:memory"), (path.name, reason)
            assert megabytes("VmHWM") - before < 316, (path.name, megabytes("VmHWM") - before)
            del data
    """
    command = [sys.executable, "-c", textwrap.dedent(child), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_limits_reach_every_place_that_decodes(folder, png):
    root = folder({"a/1.png": png(1), "a/2.png": png(2, (9, 9)), "b/3.png": png(3)})
    for limits, valid in ((Limits(), [True, True, True]), (Limits(max_pixels=80), [True, False, True])):
        source = UncuratedImages(path=str(root), limits=limits)
        assert source.training.read(torch.arange(3))[1].tolist() == valid
        labelled = open_labelled(str(root), None, SourceOptions(limits))
        assert labelled.read(torch.arange(3))[1].tolist() == valid
    small = folder({"1.png": png(1), "2.png": png(2)}, "small")
    in_memory = [UncuratedImages(path=str(small), limits=Limits(max_pixels=pixels)).training for pixels in (36, 35)]
    assert [dataset.size for dataset in in_memory] == [(6, 6), None]
    assert in_memory[0].fingerprint == in_memory[1].fingerprint
    assert not in_memory[1].read(torch.arange(2))[1].any()


# What decoders print


def damaged_jpeg():
    data = bytearray(JPEG)
    data[-300:-290] = b"\xff\xd9" * 5
    return bytes(data)


def damaged_tiff():
    data = bytearray(file_of(IMAGE, "TIFF", compression="tiff_lzw"))
    data[20:60] = b"\xff" * 40
    return bytes(data)


def decoded(data):
    try:
        decode(data)
    except Unreadable as error:
        return error.reason
    return ""


@pytest.mark.parametrize("data", [damaged_jpeg(), damaged_tiff(), of_jpeg(b"xyz", -2, PROGRESSIVE)])
def test_decoders_print_nothing(data, capfd):
    decoded(data)
    assert capfd.readouterr().err == ""


def print_in_c(line):
    library = ctypes.CDLL(None)
    library.fputs(line, ctypes.c_void_p.in_dll(library, "stderr"))


def test_what_others_print_meanwhile_is_printed(capfd):
    with quiet_decoders():
        print_in_c(b"Corrupt JPEG data: 7 extraneous bytes before marker 0xd9\n")
        print_in_c(b"out of paper\n")
        os.write(2, b"from Python\n")
        subprocess.run([sys.executable, "-c", "import sys; print('from a child', file=sys.stderr)"], check=True)
    print_in_c(b"Corrupt JPEG data: afterwards\n")
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == ["Corrupt JPEG data: afterwards", "from Python", "from a child", "out of paper"]


def test_threads_share_the_silence_and_leave_it_as_it_was(capfd):
    def work():
        for _ in range(50):
            decoded(damaged_jpeg())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print_in_c(b"Corrupt JPEG data: afterwards\n")
    assert capfd.readouterr().err == "Corrupt JPEG data: afterwards\n"
