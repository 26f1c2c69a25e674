"""The perceptual hash is imagehash's of the upright image; what is recorded of odd files."""

import hashlib
import io

import imagehash
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssl_lightning.data.decode import decode
from ssl_lightning.data.hashing import difference_hash, examine
from ssl_lightning.data.limits import Limits
from ssl_lightning.data.options import DEFAULT_OPTIONS, SourceOptions


def saved(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(height, width, seed=0, channels=3):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values[:, :, 0] if channels == 1 else values)


def oracle(data):
    image = Image.fromarray(np.ascontiguousarray(decode(data).permute(1, 2, 0).numpy()))
    return int(str(imagehash.dhash(image)), 16)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99), st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_the_hash_is_that_of_imagehash(height, width, seed, kind):
    data = saved(noise(height, width, seed), kind)
    found = examine(data, DEFAULT_OPTIONS)
    assert found.status == ("ok" if max(height, width) <= 50 * min(height, width) else "quarantined:aspect")
    if found.status == "ok":
        assert found.phash == oracle(data)


def test_bits_are_ordered_row_by_row_from_the_most_significant_one():
    gray = torch.zeros(8, 9, dtype=torch.uint8)
    gray[0, 1] = 255  # larger than its left neighbor: the first bit of the first row
    assert difference_hash(gray.expand(3, 8, 9)) == 1 << 63
    gray = torch.zeros(8, 9, dtype=torch.uint8)
    gray[7, 8] = 255
    assert difference_hash(gray.expand(3, 8, 9)) == 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_file_and_the_hash_that_of_the_upright_image(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(noise(40, 60), kind, exif=exif)
    found = examine(data, DEFAULT_OPTIONS)
    assert (found.header.width, found.header.height, found.orientation) == (60, 40, orientation)
    assert found.phash == oracle(data)


def test_a_resized_copy_has_a_hash_of_few_other_bits():
    smooth = noise(8, 8).resize((300, 200), Image.Resampling.BICUBIC)
    one, other = (examine(saved(image, "JPEG"), DEFAULT_OPTIONS).phash for image in (smooth, smooth.resize((90, 60))))
    assert (one ^ other).bit_count() <= 4


def test_files_that_cannot_be_decoded_are_quarantined_with_their_reason_and_header():
    whole = saved(noise(60, 60), "JPEG")
    cases = {
        "empty": b"",
        "format": b"<html>no image</html>",
        "truncated": saved(noise(20, 20))[:300],
        "bomb:pixels": saved(noise(60, 60)),
    }
    options = SourceOptions(Limits(max_pixels=1000))
    for reason, data in cases.items():
        found = examine(data, options)
        assert (found.status, found.phash) == (f"quarantined:{reason}", None)
        assert found.sha256 == hashlib.sha256(data).digest()
    assert (found.header.width, found.header.format) == (60, "PNG")
    assert examine(whole, DEFAULT_OPTIONS).header.mode == "RGB"
    assert examine(saved(noise(9, 9, channels=1)), DEFAULT_OPTIONS).header.mode == "L"
