"""The same files in every kind of source: equal images, one reason for each odd file, equal batches from workers."""

import io
import json
import struct
import tarfile
import zlib

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from ssl_lightning.data import UncuratedImages
from ssl_lightning.data.decode import Unreadable, decode
from ssl_lightning.data.packs import open_unlabelled


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bomb():
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def odd_files():
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    rotated = Image.Exif()
    rotated[274] = 6
    deep = Image.fromarray(np.arange(0, 108 * 600, 600, dtype=np.uint16).reshape(9, 12))
    white = bytearray(encoded(deep, "TIFF"))
    at = white.index(struct.pack("<HHI", 262, 3, 1)) + 8
    white[at : at + 2] = struct.pack("<H", 0)
    return {
        "00.jpg": encoded(image, "JPEG"),
        "01.jpg": encoded(image, "JPEG", exif=rotated),
        "02.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "03.jpg": encoded(image, "JPEG")[:200],
        "04.jpg": b"<html>not an image</html>",
        "05.png": encoded(image.convert("P"), "PNG", transparency=3),
        "06.png": encoded(image, "PNG")[:-60],
        "07.png": b"",
        "08.png": bomb(),
        "09.png": encoded(deep, "PNG"),
        "10.tif": bytes(white),
        "11.tif": encoded(Image.fromarray(noise[..., 0].astype(np.float32)), "TIFF"),
        "12.gif": encoded(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
        "13.webp": encoded(image, "WEBP"),
        "14.bmp": encoded(image, "BMP"),
        "15.png": encoded(Image.new("L", (600, 2)), "PNG"),
    }


FILES = odd_files()


def in_folder(root, files):
    (root / "images").mkdir(parents=True)
    for name, data in files.items():
        (root / "images" / name).write_bytes(data)
    return str(root / "images")


def in_tar(root, files, ending="tar", mode="w"):
    with tarfile.open(root / f"x.{ending}", mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(root / f"x.{ending}")


def columns_of(files):
    rows = [{"bytes": data, "path": name} for name, data in files.items()]
    return pa.table({"image": pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})


def in_parquet(root, files):
    pq.write_table(columns_of(files), root / "x.parquet", row_group_size=3)
    return str(root / "x.parquet")


def in_arrow(root, files, compression=None):
    table = columns_of(files)
    with pa.ipc.new_file(
        root / "x.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as out:
        out.write_table(table, max_chunksize=3)
    return str(root / "x.arrow")


def in_list(root, files):
    in_folder(root, files)
    (root / "list.jsonl").write_text("\n".join(json.dumps({"path": f"images/{name}"}) for name in files))
    return str(root / "list.jsonl")


def in_hdf5(root, files):
    with h5py.File(root / "x.h5", "w") as file:
        rows = file.create_dataset("images", (len(files),), h5py.vlen_dtype(np.uint8))
        for row, data in enumerate(files.values()):
            rows[row] = np.frombuffer(data, np.uint8)
    return str(root / "x.h5")


def in_store(root, files):
    for name, data in files.items():
        MemoryFileSystem().pipe_file(f"/{root.name}/images/{name}", data)
    return f"memory://{root.name}/images"


def in_tar_in_store(root, files):
    with open(in_tar(root, files), "rb") as stream:
        MemoryFileSystem().pipe_file(f"/{root.name}.tar", stream.read())
    return f"memory://{root.name}.tar"


SOURCES = {
    "folder": in_folder,
    "tar": in_tar,
    "tar.xz": lambda root, files: in_tar(root, files, "tar.xz", "w:xz"),
    "parquet": in_parquet,
    "arrow": in_arrow,
    "compressed arrow": lambda root, files: in_arrow(root, files, "zstd"),
    "list": in_list,
    "hdf5": in_hdf5,
    "store": in_store,
    "tar in a store": in_tar_in_store,
}


@pytest.fixture(params=SOURCES)
def source(request, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LIGHTNING_CACHE", str(tmp_path / "cache"))
    yield lambda files: SOURCES[request.param](tmp_path, files)
    MemoryFileSystem().store.clear()


def result(data):
    try:
        return decode(data).contiguous()
    except Unreadable as error:
        return error.reason


def test_each_odd_file_has_one_result_in_every_source(source):
    expected = [result(data) for data in FILES.values()]
    reasons = [each for each in expected if isinstance(each, str)]
    assert {"truncated", "format", "empty", "bomb:pixels", "depth", "aspect"} <= set(reasons)
    dataset = open_unlabelled(source(FILES))
    images, valid = dataset.read(torch.arange(len(dataset)))
    assert valid.tolist() == [not isinstance(each, str) for each in expected]
    for image, each in zip(images, expected, strict=True):
        assert isinstance(each, str) or torch.equal(image, each)
    words = {dataset.reason(row) for row, each in enumerate(expected) if isinstance(each, str)}
    assert len(words) == len(set(reasons))
    stopped = "without data.intensity_window"
    assert any(stopped in each for each in words)


def test_workers_give_the_batches_of_the_main_process(source, png):
    path = source({f"{number:02d}.png": png(number, (6, 5 + number % 3)) for number in range(12)})

    def batches(workers):
        data = UncuratedImages(path=path, batch_size=4, image_size=6, num_workers=workers)
        try:
            return [(batch.index.tolist(), batch.images[0]) for batch in data.train_dataloader()]
        finally:
            data.teardown("fit")

    for (rows, images), (others, expected) in zip(batches(2), batches(0), strict=True):
        assert rows == others
        assert torch.equal(images, expected)
