"""Small images that encode their number as color, as files, folders and tar files."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _color(number):
    return (number * 37 % 256, number * 91 % 256, number * 151 % 256)


@pytest.fixture(scope="session")
def color():
    """The color of image `number`, by which a test recognizes it."""
    return _color


@pytest.fixture(scope="session")
def png():
    """Bytes of an image of one color."""

    def make(number, size=(6, 6)):
        stream = io.BytesIO()
        Image.new("RGB", (size[1], size[0]), _color(number)).save(stream, "PNG")
        return stream.getvalue()

    return make


@pytest.fixture(scope="session")
def number_of():
    """Which image a tensor shows."""
    table = {_color(number): number for number in range(256)}

    def find(image):
        pixels = np.asarray(image).reshape(3, -1)
        assert (pixels == pixels[:, :1]).all()
        return table[tuple(int(value) for value in pixels[:, 0])]

    return find


@pytest.fixture
def folder(tmp_path):
    """Writes files by name into a folder."""

    def make(files, name="images"):
        for path, data in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return tmp_path / name

    return make


@pytest.fixture
def tar(tmp_path):
    """Writes members, bytes or whole headers, into a tar file."""

    def make(members, name="images.tar", mode="w"):
        with tarfile.open(tmp_path / name, mode) as archive:
            for member, data in members:
                info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
                if data is not None:
                    info.size = len(data)
                archive.addfile(info, None if data is None else io.BytesIO(data))
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def pack():
    """A real pack by its file name, or a skip."""

    def find(name):
        root = os.environ.get("SSL_LIGHTNING_DATA")
        if not root or not any(Path(root).glob(name)):
            pytest.skip(f"{name} is not in the folder that SSL_LIGHTNING_DATA names")
        return name

    return find
