"""What is decoded of a broken file, and what never is."""

import io

import numpy as np
import pytest
from PIL import Image

from ssl_lightning.data.manifest.remains import decoded, remains_of
from ssl_lightning.data.manifest.survey import BrokenFile


def encoded(kind, size=(200, 100)):
    stream = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_half_a_file_gives_a_thumbnail_of_its_shape(kind):
    data = encoded(kind)
    found = decoded(data[: len(data) // 2])
    assert found.shape == (48, 96, 3)
    assert found[:10].std() > 10


@pytest.mark.parametrize("data", [b"", b"no image", encoded("PNG")[:20], bytes(1000)])
def test_a_file_without_pixels_gives_none(data):
    assert decoded(data) is None


def test_a_file_that_may_take_too_much_is_not_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))

    def of(reason, size=1000):
        return remains_of(BrokenFile(".", "", "a.png", -1, size, reason, ""), tmp_path)

    assert of("truncated") is not None
    assert of("bomb:pixels") is None
    assert of("truncated", size=1 << 30) is None


def test_an_image_of_too_many_pixels_is_not_decoded():
    stream = io.BytesIO()
    Image.new("1", (8000, 8000)).save(stream, "PNG")
    assert decoded(stream.getvalue()) is None
