"""Training on a manifest: which rows, in which order, from where, and what is checked at the start."""

import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from ssl_lightning.data import UncuratedImages
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.schema import description_of
from ssl_lightning.data.options import DEFAULT_OPTIONS
from ssl_lightning.data.packs import open_unlabelled
from ssl_lightning.errors import DataError, UsageError
from tests.data.manifest.small_pools import built, image, rows, write_folder, write_tar


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images", {f"{number}.png": image(number) for number in range(6)} | {"bad.png": b""})
    write_tar(tmp_path / "s0.tar", {f"{row}.png": image(50 + row) for row in range(4)})
    built("pool.parquet", "./images", "./s*.tar")
    return tmp_path / "pool.parquet"


def numbers(dataset):
    """The number of each image, by id."""
    images, valid = dataset.read(torch.arange(len(dataset)))
    assert valid.all()
    shown = [int(each[0, 0, 0]) + 256 * int(each[1, 0, 0]) for each in images]
    return dict(zip(dataset.sample_ids.tolist(), shown, strict=True))


def test_usable_rows_are_in_the_order_of_ids_with_the_ids_of_the_manifest(pool):
    dataset = open_unlabelled("pool.parquet")
    assert isinstance(dataset, ManifestImages)
    assert dataset.sample_ids.tolist() == sorted(row["sample_id"] for row in rows(pool) if row["status"] == "ok")
    assert dataset.fingerprint == f"v2:{description_of(pool)['fingerprint']}"
    (report,) = dataset.reports()
    assert (report.found, dict(report.skipped)) == (10, {"empty": ["bad.png"]})
    assert dataset.labels.tolist() == [-1] * 10


def test_ids_and_images_stay_paired_and_the_fingerprint_stays_when_files_are_renamed(pool):
    before = open_unlabelled("./pool.parquet")
    shown, fingerprint = numbers(before), before.fingerprint
    os.rename("images/0.png", "images/zz.png")
    os.rename("s0.tar", "s9.tar")
    built("pool.parquet", "./images", "./s*.tar")
    after = open_unlabelled("./pool.parquet")
    assert (numbers(after), after.fingerprint) == (shown, fingerprint)
    assert after.sample_ids.tolist() == sorted(after.sample_ids.tolist())


def test_a_manifest_that_is_moved_with_its_images_and_a_folder_of_parts_are_read(pool, tmp_path, monkeypatch):
    expected = numbers(open_unlabelled(str(pool)))
    table = parquet.read_table(pool)
    for number, some in enumerate((table.slice(0, 4), table.slice(4))):
        (tmp_path / "several").mkdir(exist_ok=True)
        parquet.write_table(some, tmp_path / "several" / f"{number}.parquet")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("images", "s0.tar", "pool.parquet"):
        shutil.move(tmp_path / name, moved / name)
    monkeypatch.chdir("/")
    assert numbers(open_unlabelled(str(moved / "pool.parquet"))) == expected
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(moved))
    assert numbers(open_unlabelled(str(tmp_path / "several"))) == expected


def test_columns_are_mapped_and_not_copied(pool):
    dataset = open_unlabelled("./pool.parquet")
    for array in (dataset.table.offsets, dataset.table.sizes, dataset.table.container, dataset.table.names.block):
        assert isinstance(array, np.memmap)
    assert dataset.sample_ids.data_ptr() == open_address(dataset)
    assert dataset.labels.stride() == (0,)


def open_address(dataset):
    """Where the mapped ids are."""
    return dataset.sample_ids.numpy().ctypes.data


def test_shards_that_are_missing_shorter_or_replaced_stop_the_start(pool):
    whole = (pool.parent / "s0.tar").read_bytes()
    (pool.parent / "s0.tar").write_bytes(whole[:1500])
    with pytest.raises(DataError, match="shorter than"):
        open_unlabelled("./pool.parquet")
    write_tar(pool.parent / "s0.tar", {f"{row}.png": image(90 + row) for row in range(4)})
    with pytest.raises(DataError, match="missing or changed"):
        open_unlabelled("./pool.parquet")
    (pool.parent / "s0.tar").unlink()
    with pytest.raises(DataError, match=r"s0\.tar .*not found"):
        open_unlabelled("./pool.parquet")


@pytest.mark.parametrize(
    ("column", "value", "line"),
    [
        ("member", "../secret.png", "the member"),
        ("member", "/etc/passwd", "the member"),
        ("member", r"\x2e\x2e/secret.png", "the member"),
        ("offset", -7, "negative position"),
        ("sample_id", 3, "twice or below 0"),
    ],
)
def test_hostile_rows_are_rejected(pool, column, value, line):
    table = parquet.read_table(pool).replace_schema_metadata(None)
    place = table.schema.get_field_index(column)
    field = table.schema.field(column)
    parquet.write_table(table.set_column(place, field, pa.array([value] * len(table), field.type)), pool)
    with pytest.raises(DataError, match=line):
        open_unlabelled("./pool.parquet")


def test_patterns_are_for_the_build(pool):
    with pytest.raises(UsageError, match="expected them at `ssl-lightning data build`"):
        UncuratedImages(path="./pool.parquet", include=["*.png"], batch_size=2).training  # noqa: B018


def test_other_parquet_files_are_no_manifests(tmp_path):
    parquet.write_table(pa.table({"image": [image(1)]}), tmp_path / "images.parquet")
    assert len(open_unlabelled(str(tmp_path / "images.parquet"), DEFAULT_OPTIONS)) == 1
    parquet.write_table(pa.table({"sample_id": [1]}), tmp_path / "others.parquet")
    with pytest.raises(DataError, match="expected a column of encoded images"):
        open_unlabelled(str(tmp_path / "others.parquet"), DEFAULT_OPTIONS)


@pytest.mark.parametrize("kind", ["images.parquet", "images.arrow", "images.npy", "images.tar"])
def test_a_manifest_reads_the_images_that_its_source_reads(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = [image(number) for number in range(6)]
    if kind.endswith(".npy"):
        np.save(kind, np.random.default_rng(0).integers(0, 256, (6, 9, 8, 3), dtype=np.uint8))
    elif kind.endswith(".tar"):
        write_tar(tmp_path / kind, {f"{number}.png": data for number, data in enumerate(content)})
    elif kind.endswith(".parquet"):
        parquet.write_table(pa.table({"image": content}), kind, row_group_size=2)
    else:
        table = pa.table({"image": content})
        with pa.OSFile(kind, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    built("pool.parquet", f"./{kind}")
    direct, found = open_unlabelled(f"./{kind}"), open_unlabelled("./pool.parquet")
    every = torch.arange(6)
    assert len(found) == 6
    for one, other in zip(direct.read(every)[0], found.read(every)[0], strict=True):
        assert torch.equal(one, other)
