"""data dedup as it is typed: planted copies are found, one of each group is kept, evaluation sets are subtracted."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pyarrow import parquet

from ssl_lightning.data import Subset, UncuratedImages
from ssl_lightning.data.manifest import thumbnails
from ssl_lightning.entry import run
from tests.data.manifest.small_pools import write_folder

COPIES = {"resized": 0.6, "enlarged": 1.7}


def smooth_image(number):
    """A smooth image with shapes, another one for each number."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize((72, 64), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def planted(number):
    """An image with its copies by name."""
    image = smooth_image(number)
    files = {f"{number:02}-original.png": encoded(image), f"{number:02}-same.png": encoded(image)}
    for name, factor in COPIES.items():
        size = (int(72 * factor), int(64 * factor))
        files[f"{number:02}-{name}.png"] = encoded(image.resize(size, Image.Resampling.LANCZOS))
    return files | {f"{number:02}-compressed.jpg": encoded(image, "JPEG", quality=60)}


@pytest.fixture
def pool(tmp_path, monkeypatch, capsys):
    """Ten images with copies, ten without, blank images of two colors, one of them twice, and a mirrored one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ssl-lightning"])
    files = {}
    for number in range(10):
        files |= planted(number)
    files |= {f"{number:02}-alone.png": encoded(smooth_image(number)) for number in range(10, 20)}
    files |= {name: encoded(Image.new("RGB", size, color)) for name, size, color in (
        ("black.png", (30, 30), "black"), ("black-large.png", (40, 40), "black"), ("white.png", (30, 30), "white"),
    )}  # fmt: skip
    files |= {"11-mirrored.png": encoded(ImageOps.mirror(smooth_image(11))), "broken.png": b"\x89PNG\r\n\x1a\n"}
    write_folder(tmp_path / "images", files)
    assert run(["data", "build", "./images", "--out", "pool.parquet", "--workers", "1"]) == 0
    capsys.readouterr()
    return tmp_path


def subset(path="kept.parquet"):
    """Rows of a subset file by the name of the image."""
    names = {row["sample_id"]: row["member"] for row in parquet.read_table("pool.parquet").to_pylist()}
    return {names[row["sample_id"]]: row for row in parquet.read_table(path).to_pylist()}


def kept(found):
    return sorted(name for name, row in found.items() if row["kept"])


def test_planted_copies_are_one_group_and_the_largest_image_is_kept(pool, capsys):
    assert run(["data", "dedup", "pool.parquet", "--out", "kept.parquet"]) == 0
    found = subset()
    expected = [f"{number:02}-enlarged.png" for number in range(10)]
    expected += [f"{number:02}-alone.png" for number in range(10, 20)]
    assert kept(found) == sorted([*expected, "11-mirrored.png", "black-large.png", "white.png"])
    assert found["03-original.png"]["group"] == found["03-compressed.jpg"]["group"] != found["04-original.png"]["group"]
    assert {row["reason"] for row in found.values()} == {"", "near copy"}
    shown = capsys.readouterr().out
    assert "64 images, 23 kept: 41 near copy" in shown
    assert "11 groups of duplicates, the largest of 5 images" in shown


def test_the_kept_images_are_trained_on(pool):
    assert run(["data", "dedup", "pool.parquet", "--out", "kept.parquet"]) == 0
    data = UncuratedImages(path="./pool.parquet", subset=Subset("kept.parquet"))
    assert sorted(name.rpartition("/")[2] for name in data.training.names) == kept(subset())
    dropped = UncuratedImages(path="./pool.parquet", subset=Subset("kept.parquet", column="kept", value=0))
    assert len(dropped.training) == 41


def test_the_first_of_a_group_is_kept_and_equal_bytes_are_named(pool):
    assert run(["data", "dedup", "pool.parquet", "--out", "kept.parquet", "--keep", "first"]) == 0
    found = subset()
    assert {row["reason"] for name, row in found.items() if name.endswith("-compressed.jpg")} == {""}
    assert run(["data", "dedup", "pool.parquet", "--out", "kept.parquet", "--bits", "0", "--difference", "0"]) == 0
    found = subset()
    assert [name for name, row in found.items() if row["reason"] == "copy" and name[0].isdigit()] == [
        f"{number:02}-same.png" for number in range(10)
    ]


def test_mirror_images_are_duplicates_where_that_is_requested(pool):
    assert run(["data", "dedup", "pool.parquet", "--out", "kept.parquet", "--mirrored", "true"]) == 0
    found = subset()
    assert found["11-mirrored.png"]["group"] == found["11-alone.png"]["group"]
    assert len({row["group"] for row in found.values()}) == 22


def test_images_of_an_evaluation_set_are_not_kept(pool, capsys):
    small = smooth_image(12).resize((48, 43), Image.Resampling.LANCZOS)
    write_folder(pool / "evaluation", {"test/a/x.jpg": encoded(small, "JPEG", quality=80), "test/b/y.png": b"broken"})
    command = ["data", "dedup", "pool.parquet", "--out", "kept.parquet", "--against", '["./evaluation/test"]']
    assert run(command) == 0
    found = subset()
    assert [name for name, row in found.items() if row["reason"].startswith("in ")] == ["12-alone.png"]
    assert found["12-alone.png"]["reason"] == "in ./evaluation/test"
    assert found["black-large.png"]["kept"]
    assert "1 in ./evaluation/test" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["dedup", "pool.parquet", "--out"],
        ["check", "pool.parquet", "--details"],
        ["curate", "pool.parquet", "--features", "f.safetensors", "--size", "5", "--out"],
    ],
)
@pytest.mark.parametrize("alias", ["images/../pool.parquet", "link.parquet"])
def test_no_command_writes_over_a_manifest_by_another_path(pool, command, alias, capsys):
    (pool / "link.parquet").symlink_to("pool.parquet")
    before, parts = (pool / "pool.parquet").read_bytes(), sorted((pool / "pool.parquet.parts").iterdir())
    assert run(["data", *command, alias]) == 64
    assert f"{alias}, a manifest (its ids would be lost)" in capsys.readouterr().err
    assert (pool / "pool.parquet").read_bytes() == before
    assert sorted((pool / "pool.parquet.parts").iterdir()) == parts


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        ([], 64, "found no manifest"),
        (["pool.parquet"], 64, "found out=''"),
        (["pool.parquet", "--out", "pool.parquet"], 64, "expected another name"),
        (["pool.parquet", "--out", "k.parquet", "--bits", "9"], 64, "found bits=9"),
        (["absent.parquet", "--out", "k.parquet"], 65, "found no manifest at absent.parquet"),
        (["pool.parquet", "--out", "k.parquet", "--against", '["./absent/test"]'], 65, "./absent"),
        (["pool.parquet", "--out", "k.parquet", "--features", "absent.safetensors"], 65, "absent.safetensors"),
    ],
)
def test_a_mistake_is_one_line(pool, options, code, line, capsys):
    assert run(["data", "dedup", *options]) == code
    (shown,) = [each for each in capsys.readouterr().err.splitlines() if each]
    assert line in shown
    assert not (pool / "k.parquet").exists()


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 16 images."""
    monkeypatch.setattr(thumbnails, "IMAGES_OF_A_PART", 16)


def test_processes_and_jobs_give_the_same_bytes(pool, small_parts, capsys):
    command = ["data", "dedup", "pool.parquet", "--mirrored", "true", "--out"]
    assert run([*command, "one.parquet", "--workers", "1"]) == 0
    assert run([*command, "two.parquet", "--workers", "2"]) == 0
    for job in ("3/3", "1/3"):
        assert run([*command, "jobs.parquet", "--workers", "1", "--part", job]) == 0
    assert "next, after all jobs: the same command without --part" in capsys.readouterr().out
    assert not (pool / "jobs.parquet").exists()
    assert run([*command, "jobs.parquet", "--workers", "1"]) == 0  # makes what job 2 would have made
    contents = [(pool / f"{name}.parquet").read_bytes() for name in ("one", "two", "jobs")]
    assert contents[0] == contents[1] == contents[2]
    assert [path.name for path in pool.glob("*.parts")] == ["pool.parquet.parts"]


def test_finished_parts_are_not_made_again(pool, small_parts, monkeypatch):
    command = ["data", "dedup", "pool.parquet", "--workers", "1", "--out"]
    assert run([*command, "whole.parquet"]) == 0
    assert run([*command, "kept.parquet", "--part", "1/2"]) == 0
    finished = {path.name for path in (pool / "kept.parquet.parts").iterdir()}
    made, make = [], thumbnails._make
    monkeypatch.setattr(thumbnails, "_make", lambda task, count: (made.append(Path(task.path).name), make(task, count)))
    assert run([*command, "kept.parquet"]) == 0
    assert finished
    assert made
    assert not finished & set(made)
    assert (pool / "kept.parquet").read_bytes() == (pool / "whole.parquet").read_bytes()


def test_a_candidate_that_cannot_be_read_is_named(pool, capsys):
    (pool / "images" / "03-same.png").write_bytes(b"")
    assert run(["data", "dedup", "pool.parquet", "--out", "kept.parquet"]) == 65
    assert "03-same.png" in capsys.readouterr().err
