"""Manifests of collections: their columns, ids that stay, and builds that continue."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ssl_lightning.data.manifest import parts as parts_module
from ssl_lightning.data.manifest import units as units_module
from ssl_lightning.data.manifest.build import Job, build, merge_parts
from ssl_lightning.data.manifest.planned import parts_folder
from ssl_lightning.data.manifest.pool import carry_out
from ssl_lightning.data.manifest.schema import SCHEMA, description_of, from_text, to_text
from ssl_lightning.data.options import DEFAULT_OPTIONS
from ssl_lightning.errors import DataError, UsageError
from tests.data.manifest.small_pools import built, ids, image, rows, write_folder, write_tar


def test_the_columns_of_a_folder(tmp_path):
    files = {"b/1.png": image(1), "a.png": image(2, 9), "bad.png": b"GIF89a", "notes.txt": b"no image"}
    write_folder(tmp_path / "images", files)
    built(tmp_path / "pool.parquet", tmp_path / "images")
    table = parquet.read_table(tmp_path / "pool.parquet")
    assert table.schema.equals(SCHEMA)
    found = rows(tmp_path / "pool.parquet")
    assert [row["member"] for row in found] == ["a.png", "b/1.png", "bad.png"]
    assert [row["sample_id"] for row in found] == [0, 1, 2]
    assert [row["status"] for row in found] == ["ok", "ok", "quarantined:truncated"]
    assert [(row["width"], row["height"], row["format"]) for row in found] == [
        (9, 9, "PNG"), (6, 6, "PNG"), (None, None, None)
    ]  # fmt: skip
    for row in found:
        assert row["sha256"] == hashlib.sha256(files[row["member"]]).digest()
        assert (row["size"], row["offset"], row["shard"]) == (len(files[row["member"]]), -1, "")
    assert found[2]["phash"] is None
    assert found[0]["phash"] == 0


def test_the_columns_of_shards_and_where_their_bytes_are(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"pool-{number}.tar", {f"{name}.png": image(10 * number + name) for name in (2, 1)})
    built(tmp_path / "m.parquet", tmp_path / "pool-*.tar")
    found = rows(tmp_path / "m.parquet")
    assert [(row["shard"], row["member"]) for row in found] == [
        (f"pool-{number}.tar", f"{name}.png") for number in range(3) for name in (1, 2)
    ]
    for row in found:
        content = (tmp_path / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        assert hashlib.sha256(content).digest() == row["sha256"]


def test_the_fingerprint_is_that_of_usable_rows_in_the_order_of_ids(tmp_path):
    files = {f"{name}.png": image(number) for number, name in enumerate("dbca")} | {"bad.png": b""}
    write_folder(tmp_path / "images", files)
    out = tmp_path / "pool.parquet"
    built(out, tmp_path / "images")

    def expected():
        usable = sorted((row for row in rows(out) if row["status"] == "ok"), key=lambda row: row["sample_id"])
        content = b"".join(row["sample_id"].to_bytes(8, "little") + row["sha256"] for row in usable)
        return hashlib.sha256(content).hexdigest()

    first = description_of(out)["fingerprint"]
    assert first == expected()
    os.rename(tmp_path / "images" / "a.png", tmp_path / "images" / "z.png")  # the id of a row is out of order now
    built(out, tmp_path / "images")
    assert description_of(out)["fingerprint"] == first == expected()
    (tmp_path / "images" / "z.png").unlink()
    built(out, tmp_path / "images")
    assert description_of(out)["fingerprint"] == expected() != first


def test_one_process_several_and_jobs_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(units_module, "FILES_OF_A_UNIT", 7)
    write_folder(tmp_path / "images", {f"{number}.png": image(number) for number in range(40)})
    for number in range(4):
        write_tar(tmp_path / f"s{number}.tar", {f"{row}.png": image(100 * number + row) for row in range(9)})
    sources = tmp_path / "images", tmp_path / "s*.tar"
    contents = []
    for workers, jobs in ((1, 1), (3, 1), (1, 4)):
        out = tmp_path / f"{workers}-{jobs}" / "pool.parquet"
        changes = built(out, *sources, workers=workers, jobs=jobs)
        assert (changes.rows, changes.new) == (76, 76)
        contents.append(out.read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_a_second_build_reads_only_what_is_new_or_changed(tmp_path, monkeypatch):
    folder, out = tmp_path / "images", tmp_path / "pool.parquet"
    write_folder(folder, {f"{number:03d}.png": image(number) for number in range(30)})
    for number in range(2):
        write_tar(tmp_path / f"s{number}.tar", {f"{row}.png": image(100 * number + row) for row in range(9)})
    sources = folder, tmp_path / "s*.tar"
    built(out, *sources)
    before = out.stat().st_mtime_ns
    report = build([str(source) for source in sources], out, DEFAULT_OPTIONS, 1)
    assert (report.made, report.read, report.changes.unchanged, report.changes.new) == (0, 0, 48, 0)
    assert out.stat().st_mtime_ns == before
    (folder / "000a.png").write_bytes(image(77))
    (folder / "005.png").write_bytes(image(78, 8))
    (folder / "007.png").unlink()
    write_tar(tmp_path / "s1.tar", {f"{row}.png": image(100 + row) for row in range(10)})
    report = build([str(source) for source in sources], out, DEFAULT_OPTIONS, 1)
    assert (report.read, report.decoded) == (2 + 10, 2 + 1)
    changes = report.changes
    assert (changes.new, changes.changed, changes.vanished, changes.unchanged) == (2, 1, 1, 28 + 18)
    assert not {path.name for path in parts_folder(out).glob("*.retry.parquet")}
    assert len(list(parts_folder(out).glob("*.parquet"))) == 3


def test_the_id_of_a_vanished_file_is_never_used_again_and_comes_back_with_it(tmp_path):
    folder, out = tmp_path / "images", tmp_path / "pool.parquet"
    write_folder(folder, {f"{number}.png": image(number) for number in range(3)})
    built(out, folder)
    (folder / "2.png").unlink()
    assert built(out, folder).vanished == 1
    assert [(row["member"], row["status"]) for row in rows(out)][2] == ("2.png", "missing")
    (folder / "3.png").write_bytes(image(3))
    changes = built(out, folder)
    assert (changes.vanished, changes.missing, changes.new) == (0, 1, 1)
    assert ids(out) == {"0.png": 0, "1.png": 1, "3.png": 3}
    (folder / "2.png").write_bytes(image(2))
    built(out, folder)
    assert ids(out) == {f"{number}.png": number for number in range(4)}


def test_a_renamed_file_keeps_its_id_unless_its_bytes_occur_twice(tmp_path):
    folder, out = tmp_path / "images", tmp_path / "pool.parquet"
    write_folder(folder, {"a.png": image(0), "b.png": image(1), "c.png": image(1), "d.png": image(3)})
    built(out, folder)
    os.rename(folder / "a.png", folder / "z.png")
    os.rename(folder / "b.png", folder / "x.png")
    os.rename(folder / "c.png", folder / "y.png")
    changes = built(out, folder)
    assert (changes.renamed, changes.new, changes.vanished, changes.unchanged) == (1, 2, 2, 1)
    assert ids(out) == {"d.png": 3, "x.png": 4, "y.png": 5, "z.png": 0}


def test_a_renamed_shard_and_a_moved_source_keep_all_ids(tmp_path):
    out = tmp_path / "pool.parquet"
    for number in range(2):
        write_tar(tmp_path / f"a/s{number}.tar", {f"{row}.png": image(100 * number + row) for row in range(5)})
    built(out, tmp_path / "a/s*.tar")
    before = [row["sha256"] for row in sorted(rows(out), key=lambda row: row["sample_id"])]
    os.rename(tmp_path / "a/s0.tar", tmp_path / "a/t0.tar")
    assert built(out, tmp_path / "a/*.tar").renamed == 5
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert built(out, tmp_path / "b/*.tar").renamed == 10
    found = sorted(rows(out), key=lambda row: row["sample_id"])
    assert [row["sha256"] for row in found] == before
    assert {row["status"] for row in found} == {"ok"}


operation = st.tuples(
    st.sampled_from(["add", "change", "remove", "rename", "append", "drop shard", "rename shard"]),
    st.integers(0, 10**6),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(operation, max_size=5), min_size=1, max_size=3))
def test_ids_and_images_stay_paired_whatever_happens_between_builds(tmp_path_factory, rounds):
    root = tmp_path_factory.mktemp("pool")
    folder, out, numbers = root / "images", root / "pool.parquet", iter(range(10**6))
    folder.mkdir()
    shards = {f"s{number}.tar": {f"{row}.png": image(next(numbers)) for row in range(3)} for number in range(2)}
    files = {f"{number}.png": image(next(numbers)) for number in range(4)}
    known = {}
    for operations in [[], *rounds]:
        for kind, value in operations:
            change(kind, value, files, shards, numbers)
        for path in [*folder.iterdir(), *root.glob("*.tar")]:
            path.unlink()
        write_folder(folder, files)
        for name, content in shards.items():
            write_tar(root / name, content)
        changes = built(out, folder, *([root / "*.tar"] if shards else []))
        expected = dict(files)
        expected |= {f"{shard}/{name}": data for shard, content in shards.items() for name, data in content.items()}
        there = ids(out)
        assert there.keys() == expected.keys()
        assert len({row["sample_id"] for row in rows(out)}) == changes.rows
        for row in rows(out):
            path = "/".join(filter(None, (row["shard"], row["member"])))
            if row["status"] == "ok":
                assert row["sha256"] == hashlib.sha256(expected[path]).digest()
        for path, number in known.items():  # a file of the same name keeps its id
            assert there.get(path, number) == number
        gone = set(known.values()) - set(there.values())
        assert gone <= {row["sample_id"] for row in rows(out) if row["status"] == "missing"}
        known |= there
        known = {path: number for path, number in known.items() if path in there}


def change(kind, value, files, shards, numbers):
    """One change of a collection."""
    names = sorted(files)
    tars = sorted(shards)
    if kind == "add":
        files[f"new{value % 50}.png"] = image(next(numbers))
    elif kind == "append" and tars:
        shards[tars[value % len(tars)]][f"{value % 20}.png"] = image(next(numbers))
    elif kind == "drop shard" and tars:
        del shards[tars[value % len(tars)]]
    elif kind == "rename shard" and tars:
        shards[f"t{value % 9}.tar"] = shards.pop(tars[value % len(tars)])
    elif kind == "change" and names:
        files[names[value % len(names)]] = image(next(numbers))
    elif kind == "remove" and len(names) > 1:
        del files[names[value % len(names)]]
    elif kind == "rename" and names:
        files[f"r{value % 50}.png"] = files.pop(names[value % len(names)])


def test_a_damaged_shard_is_named_and_the_parts_of_the_others_are_kept(tmp_path):
    out = tmp_path / "pool.parquet"
    for number in range(3):
        write_tar(tmp_path / f"s{number}.tar", {f"{row}.png": image(100 * number + row, 60) for row in range(9)})
    whole = (tmp_path / "s1.tar").read_bytes()
    (tmp_path / "s1.tar").write_bytes(whole[:2000])
    with pytest.raises(DataError, match=r"s1\.tar .*parts of the others are kept"):
        built(out, tmp_path / "s*.tar")
    assert not out.exists()
    (tmp_path / "s1.tar").write_bytes(whole)
    report = build([str(tmp_path / "s*.tar")], out, DEFAULT_OPTIONS, 1)
    assert (report.made, report.read, report.changes.rows) == (1, 9, 27)


def test_a_file_that_cannot_be_opened_is_tried_again_by_the_next_build(tmp_path, monkeypatch):
    folder, out = tmp_path / "images", tmp_path / "pool.parquet"
    write_folder(folder, {f"{number}.png": image(number) for number in range(3)})
    read = parts_module.ByteTable.read

    def failing(table, row):
        if table.names[row] == "1.png":
            raise OSError(5, "Input/output error")
        return read(table, row)

    monkeypatch.setattr(parts_module.ByteTable, "read", failing)
    built(out, folder)
    assert [row["status"] for row in rows(out)] == ["ok", "quarantined:unopened", "ok"]
    monkeypatch.setattr(parts_module.ByteTable, "read", read)
    report = build([str(folder)], out, DEFAULT_OPTIONS, 1)
    assert (report.read, report.changes.changed) == (1, 1)
    assert [row["status"] for row in rows(out)] == ["ok"] * 3
    assert ids(out) == {"0.png": 0, "1.png": 1, "2.png": 2}


def test_a_machine_without_the_source_or_the_folder_of_parts_is_an_error(tmp_path):
    write_folder(tmp_path / "images", {"1.png": image(1)})
    (unit,), _ = units_module.plan([str(tmp_path / "images")], tmp_path / "pool.parquet", DEFAULT_OPTIONS)
    for removed in ("parts", "images"):
        if removed == "images":
            (tmp_path / "parts").mkdir()
            shutil.rmtree(tmp_path / "images")
        with pytest.raises(DataError, match=rf"found no .*{removed}; expected the sources and the folder of the parts"):
            parts_module.build_part(unit, DEFAULT_OPTIONS, tmp_path / "parts", [], lambda *_: None)


def test_a_part_that_a_lost_worker_has_written_is_not_made_again(tmp_path):
    write_tar(tmp_path / "s.tar", {"0.png": image(0)})
    units, _ = units_module.plan([str(tmp_path / "s.tar")], tmp_path / "pool.parquet", DEFAULT_OPTIONS)
    found = [
        next(iter(carry_out([(unit, []) for unit in units], DEFAULT_OPTIONS, tmp_path, 1)[0].values())).read
        for _ in range(2)
    ]
    assert found == [1, 0]


def test_a_missing_part_is_named_by_the_merge(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"s{number}.tar", {"0.png": image(number)})
    out = tmp_path / "pool.parquet"
    build([str(tmp_path / "s*.tar")], out, DEFAULT_OPTIONS, 1, Job(2, 3))
    with pytest.raises(DataError, match=r"found 1 of 3 parts .* 2 are missing, the first of .*s0\.tar"):
        merge_parts(parts_folder(out), out)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/2/3"])
def test_a_job_is_a_number_of_a_count(text):
    with pytest.raises(UsageError, match="expected i/n"):
        Job.parsed(text)


def test_a_compressed_tar_and_a_source_that_is_given_twice_are_rejected(tmp_path):
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataError, match="compressed tar file; expected a plain one"):
        built(tmp_path / "pool.parquet", tmp_path / "s.tar.gz")
    write_folder(tmp_path / "images", {"1.png": image(1)})
    with pytest.raises(UsageError, match="twice among the sources"):
        built(tmp_path / "pool.parquet", tmp_path / "images", tmp_path / "images")


def test_a_folder_of_shards_and_images_is_read_with_both(tmp_path):
    write_folder(tmp_path / "mixed", {"deep/1.png": image(1)})
    write_tar(tmp_path / "mixed/deep/s.tar", {"0.png": image(0)})
    built(tmp_path / "pool.parquet", tmp_path / "mixed")
    assert [(row["shard"], row["member"]) for row in rows(tmp_path / "pool.parquet")] == [
        ("", "deep/1.png"),
        ("deep/s.tar", "0.png"),
    ]


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_every_name_is_text_and_comes_back(name):
    text = to_text(os.fsdecode(name))
    text.encode()
    assert os.fsencode(from_text(text)) == name


def test_names_that_are_no_text_or_need_escapes_are_rows(tmp_path):
    folder = tmp_path / "images"
    names = [b"\xff\xfe.png", b"a\\x41.png", "é\n☃.png".encode(), b"a.png", b"Z.png"]
    folder.mkdir()
    for number, name in enumerate(names):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(image(number))
    out = tmp_path / "pool.parquet"
    built(out, folder)
    assert [os.fsencode(from_text(row["member"])) for row in rows(out)] == sorted(names)
    assert built(out, folder).unchanged == len(names)
    os.rename(os.fsencode(folder) + b"/" + names[0], os.fsencode(folder) + b"/\x80.png")
    assert built(out, folder).renamed == 1


def test_a_source_beside_the_manifest_is_recorded_as_given_and_any_other_as_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path / "data"))
    write_folder(tmp_path / "images", {"1.png": image(1)})
    write_tar(tmp_path / "data/s.tar", {"0.png": image(0)})
    for out, expected in (
        ("pool.parquet", "./images"),
        ("other/pool.parquet", str(tmp_path / "images")),
    ):
        Path(out).parent.mkdir(exist_ok=True)
        built(out, "./images")
        assert {row["source"] for row in rows(out)} == {expected}
    built("tars.parquet", "s.tar")
    assert {(row["source"], row["shard"]) for row in rows("tars.parquet")} == {(".", "s.tar")}


def test_a_manifest_of_another_order_is_not_updated(tmp_path):
    folder, out = tmp_path / "images", tmp_path / "pool.parquet"
    write_folder(folder, {f"{number}.png": image(number) for number in range(5)})
    built(out, folder)
    table = parquet.read_table(out)
    parquet.write_table(table.take(np.array([4, 3, 2, 1, 0])), out)
    with pytest.raises(DataError, match="another order"):
        built(out, folder)


KILLED = """
import sys
from pathlib import Path
from ssl_lightning.data.manifest.build import build
from ssl_lightning.data.options import DEFAULT_OPTIONS
build(sys.argv[2:], Path(sys.argv[1]), DEFAULT_OPTIONS, 2)
"""


@pytest.mark.slow
def test_a_build_that_is_killed_continues_and_gives_the_same_bytes(tmp_path):
    for number in range(12):
        content = {f"{row:04d}.png": image(1000 * number + row, 40) for row in range(600)}
        write_tar(tmp_path / f"s{number:02d}.tar", content)
    sources = [str(tmp_path / "s*.tar")]
    build(sources, tmp_path / "whole" / "pool.parquet", DEFAULT_OPTIONS, 1)
    out = tmp_path / "killed" / "pool.parquet"
    command = [sys.executable, "-c", KILLED, str(out), *sources]
    kills = 0
    for wait in (0.0, 0.3, 0.1):
        process = subprocess.Popen(command)
        made = len(list(parts_folder(out).glob("*.parquet")))
        while process.poll() is None and len(list(parts_folder(out).glob("*.parquet"))) == made:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 1
    kept = len(list(parts_folder(out).glob("[!.]*.parquet")))
    assert kept >= 1
    report = build(sources, out, DEFAULT_OPTIONS, 1)
    assert report.made <= 12 - kept
    assert out.read_bytes() == (tmp_path / "whole" / "pool.parquet").read_bytes()
    assert not [path for path in tmp_path.rglob(".*") if path.is_file() and path.name != ".lock"]
    time.sleep(1)
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(out) not in left
