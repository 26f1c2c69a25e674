"""The comparison of a manifest with its images."""

import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ssl_lightning.commands.data_check import main
from ssl_lightning.data.manifest.check import check
from ssl_lightning.data.manifest.planned import parts_folder
from ssl_lightning.errors import DataError
from tests.data.manifest.small_pools import built, image, write_folder, write_tar


@pytest.fixture
def pool(tmp_path):
    write_folder(tmp_path / "images", {f"{number}.png": image(number) for number in range(5)})
    for number in range(2):
        write_tar(tmp_path / f"s{number}.tar", {f"{row}.png": image(100 * number + row + 50) for row in range(4)})
    built(tmp_path / "pool.parquet", tmp_path / "images", tmp_path / "s*.tar")
    return tmp_path / "pool.parquet"


def found(pool, full=False):
    """Kind and file name of each difference, and where moved files are."""
    root = f"{pool.parent}/"
    return [
        (each.kind, each.path.removeprefix(root), each.found.removeprefix(root))
        for each in check(pool, full).differences
    ]


@pytest.mark.parametrize("full", [False, True])
def test_nothing_differs_after_the_build(pool, full, capsys):
    result = check(pool, full)
    assert (result.compared, result.differences) == (13, [])
    main(str(pool), full)
    assert "13 files" in capsys.readouterr().out


def test_missing_changed_moved_and_new_files_are_found(pool):
    folder = pool.parent / "images"
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes(image(1, 300))
    os.rename(folder / "2.png", folder / "renamed.png")
    (folder / "new.png").write_bytes(image(99))
    assert found(pool) == [
        ("missing", "images/0.png", ""),
        ("changed", "images/1.png", f"{len(image(1, 300))} bytes, {len(image(1))} in the manifest"),
        ("moved", "images/2.png", "images/renamed.png"),
        ("new", "images/new.png", ""),
    ]
    with pytest.raises(DataError, match=r"1 missing, 1 changed, 1 moved of 13 files"):
        main(str(pool))


def test_other_content_of_the_same_size_is_found_by_its_time_or_by_reading_everything(pool):
    path = pool.parent / "images" / "3.png"
    before = path.stat()
    assert len(image(77)) == before.st_size
    path.write_bytes(image(77))
    assert found(pool) == [("changed", "images/3.png", "other content")]
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found(pool) == []
    assert found(pool, full=True) == [("changed", "images/3.png", "other content")]
    path.write_bytes(image(3))  # another time, the same content
    assert found(pool) == []
    path.write_bytes(image(77))
    for part in parts_folder(pool).iterdir():
        part.unlink()
    assert found(pool) == []  # without the parts there are no times
    assert found(pool, full=True) == [("changed", "images/3.png", "other content")]


def test_shards_that_are_removed_renamed_added_truncated_or_appended_to(pool):
    root = pool.parent
    os.rename(root / "s0.tar", root / "s9.tar")
    assert [(kind, name.split("/")[0], place) for kind, name, place in found(pool)] == [
        ("moved", "s0.tar", f"s9.tar/{row}.png") for row in range(4)
    ]
    os.rename(root / "s9.tar", root / "s0.tar")
    write_tar(root / "s7.tar", {"0.png": image(200)})
    assert found(pool) == [("new", "s7.tar/0.png", "")]
    (root / "s7.tar").unlink()
    write_tar(root / "s1.tar", {f"{row}.png": image(100 + row + 50) for row in range(5)})
    assert found(pool) == [("new", "s1.tar/4.png", "")]
    (root / "s1.tar").write_bytes((root / "s1.tar").read_bytes()[:1500])
    assert [kind for kind, *_ in found(pool)] == ["missing"] * 4


def test_details_are_written_on_request(pool, tmp_path):
    (pool.parent / "images" / "0.png").unlink()
    with pytest.raises(DataError):
        main(str(pool), details=str(tmp_path / "details.parquet"))
    (row,) = parquet.read_table(tmp_path / "details.parquet").to_pylist()
    assert (row["kind"], row["sample_id"]) == ("missing", 8)
    assert row["path"].endswith("images/0.png")


@pytest.mark.parametrize(
    ("column", "value"),
    [("shard", "../s0.tar"), ("shard", "/etc"), ("source", "a/../../b"), ("shard", r"\x2e\x2e/s0.tar")],
)
def test_paths_of_a_manifest_that_leave_their_folder_are_rejected(pool, column, value):
    table = parquet.read_table(pool)
    place = table.schema.get_field_index(column)
    values = pa.array([value] * len(table)).dictionary_encode()
    parquet.write_table(table.set_column(place, column, values), pool)
    with pytest.raises(DataError, match=column):
        check(pool, full=False)


def test_a_damaged_manifest_is_one_line(pool):
    content = bytearray(pool.read_bytes())
    random = np.random.default_rng(0)
    whole = check(pool, full=False)
    for _ in range(30):
        changed = bytearray(content)
        changed[random.integers(len(content))] ^= 1 << random.integers(8)
        pool.write_bytes(changed)
        try:
            assert check(pool, full=True).differences == whole.differences
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017  # either nothing changes, or one line is raised
    pool.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="no whole Parquet file"):
        check(pool, full=False)
    with pytest.raises(DataError, match="found no manifest"):
        check(pool.with_name("absent.parquet"), full=False)
