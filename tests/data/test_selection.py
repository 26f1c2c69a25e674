"""Which files are images, which are skipped and why, and that every source reports it."""

import io
import logging
import os

import pytest
from PIL import Image

from ssl_lightning.data import CuratedImages, ProbeSet, UncuratedImages
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.packs import locate, open_unlabelled, splits
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.errors import DataError

KEPT = {f"{n}.png": n for n in range(8)}
NEVER = {
    "hidden": [".a.png", ".cache/a.png"],
    "companion files ._*": ["._0.png", "b/._1.png"],
    "in __MACOSX": ["__MACOSX/._0.png", "__MACOSX/a/0.png"],
    "in @eaDir": ["@eaDir/0.png/SYNO_THUMB.png"],
    "in .ipynb_checkpoints": [".ipynb_checkpoints/0-checkpoint.png"],
    "in .thumbnails": [".thumbnails/large/0.png"],
    "in .Trash-1000": [".Trash-1000/files/0.png"],
    "in lost+found": ["lost+found/0.png"],
    "in $RECYCLE.BIN": ["$RECYCLE.BIN/0.png"],
}


def jpeg():
    stream = io.BytesIO()
    Image.new("RGB", (6, 6), (200, 10, 10)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(params=["folder", "tar"])
def source(request, folder, tar):
    """Files by name as a folder or a tar file."""
    return lambda files: str(folder(files) if request.param == "folder" else tar(files.items()))


def short(dataset):
    return [name.split("/images")[-1].removeprefix(".tar").lstrip("/") for name in dataset.names]


def test_system_files_are_no_images_and_are_reported_by_reason(source, png, caplog):
    others = {name: png(0) for names in NEVER.values() for name in names}
    path = source({name: png(n) for name, n in KEPT.items()} | others)
    data = UncuratedImages(path=path, probe_sets={}, batch_size=4)
    with caplog.at_level(logging.INFO):
        data.setup("fit")
        data.setup("fit")
    assert short(data.training) == sorted(KEPT)
    (report,) = data.source_reports
    assert {reason: list(names) for reason, names in report.skipped.items()} == NEVER
    (line,) = (record.getMessage() for record in caplog.records if "skipped" in record.getMessage())
    assert line.startswith(f"8 images in {path}; 12 files skipped: 2 ")
    plain = report.plain()
    assert plain["found"] == 8
    assert plain["skipped"]["in @eaDir"] == {"count": 1, "first": ["@eaDir/0.png/SYNO_THUMB.png"]}


def test_system_folders_are_no_classes_and_no_splits(source, png):
    files = {f"{split}/{name}/{n}.png": png(n) for split in ("train", "test") for name in "ab" for n in range(3)}
    odd = {f"train/{name}/0.png": png(9) for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".cache")}
    path = source(files | odd | {"__MACOSX/train/a/._0.png": png(9), ".git/x/1.png": png(9)})
    data = CuratedImages(path=path)
    assert (data.training.classes, len(data.training)) == (["a", "b"], 6)
    assert splits(path) == ["test", "train"]
    train, test = next(iter(data.probes.values()))
    assert train.classes == test.classes == ["a", "b"]
    assert sum(len(names) for names in train.skipped.values()) == 4
    assert not test.skipped


def test_unknown_endings_are_decided_by_content(source, png):
    stream = io.BytesIO()
    Image.new("RGB", (6, 6)).save(stream, "TIFF")
    images = dict.fromkeys(("a.jfif", "b.jpe", "c.jpg_large", "d.jpg?w=640", "e", "F.JPG"), jpeg())
    others = {
        "g.txt": b"text",
        "h": b"BM text",
        "i.heic": b"\0\0\0 ftypheic",
        "j.NEF": stream.getvalue(),
        "k.part": jpeg(),
    }
    dataset = open_unlabelled(source(images | others | {"l.weird": b"", "m": b""}))
    assert short(dataset) == sorted(images, key=os.fsencode)
    assert {reason: list(names) for reason, names in dataset.skipped.items()} == {
        "no image, ending .txt": ["g.txt"],
        "no image, without ending": ["h", "m"],
        "no image, ending .heic": ["i.heic"],
        "no image, ending .nef": ["j.NEF"],
        "no image, ending .part": ["k.part"],
        "no image, ending .weird": ["l.weird"],
    }


@pytest.mark.parametrize(
    ("include", "exclude", "kept"),
    [
        ([], [], ["0.image.png", "0.mask.png", "masks/1.png", "x/masks/2.png"]),
        (["*.image.png"], [], ["0.image.png"]),
        ([], ["*.mask.png", "masks/*"], ["0.image.png", "x/masks/2.png"]),
        ([], ["*masks/*"], ["0.image.png", "0.mask.png"]),
        (["*.png"], ["0.*"], ["masks/1.png", "x/masks/2.png"]),
        ([".hidden/*"], [], [".hidden/3.png"]),
        (["*.png", "@eaDir/*.png"], ["*.mask.png", "*masks/*"], ["0.image.png", "@eaDir/4.png"]),
        (["._*"], [], ["._5.png"]),
    ],
)
def test_patterns_choose_files_and_override_what_is_skipped(source, png, include, exclude, kept):
    names = ["0.image.png", "0.mask.png", "masks/1.png", "x/masks/2.png", ".hidden/3.png", "@eaDir/4.png", "._5.png"]
    data = UncuratedImages(path=source({name: png(1) for name in names}), include=include, exclude=exclude)
    assert sorted(short(data.training)) == sorted(kept)


def test_patterns_apply_to_the_path_within_the_source_and_to_probe_sets(source, png):
    files = {f"{split}/a/{n}.{kind}.png": png(n) for split in ("train", "test") for n in range(2) for kind in "xy"}
    path = source(files)
    data = CuratedImages(path=path, include=["train/a/*", "test/*.x.png"])
    train, test = next(iter(data.probes.values()))
    assert (len(train), len(test)) == (4, 2)
    given = ProbeSet(f"{path}/train", f"{path}/test", exclude=("*.y.png",)).open(data.source_options)
    assert [len(split) for split in given] == [2, 2]


def test_links_pipes_and_locked_folders_are_skipped_with_their_reason(folder, png, monkeypatch):
    root = folder({"0.png": png(0), "locked/1.png": png(1)})
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "self.png").symlink_to(root / "self.png")
    os.mkfifo(root / "pipe.png")
    scandir = os.scandir

    def deny(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    dataset = open_unlabelled(str(root))
    assert {reason: list(names) for reason, names in dataset.skipped.items()} == {
        "dangling link": ["gone.png", "self.png"],
        "folder that cannot be read": ["locked/"],
        "pipe or device": ["pipe.png"],
    }


def test_a_folder_of_shards_is_read_as_they_are_and_a_line_counts_the_others(folder, tar, png, caplog):
    shards = {f"pool-00{n}.tar": tar([(f"{n}.png", png(n))], "x.tar").read_bytes() for n in range(2)}
    root = folder(shards | {"index.json": b"{}", "pool-000.parquet": b"PAR1"})
    caplog.set_level("INFO")
    assert short(open_unlabelled(str(root))) == ["pool-000.tar/0.png", "pool-001.tar/1.png"]
    assert f"{root} is read as 2 shards, the first {root}/pool-000.tar; 2 other files are skipped" in caplog.text
    with pytest.raises(DataError, match="holds no image"):
        open_unlabelled(str(root), SourceOptions(selection=Selection(exclude=("*.tar", "*.parquet"))))
    with pytest.raises(
        ValueError, match=r"holds no image .*, 1 files skipped: 1 no image, ending .txt \(a.txt\): give"
    ):
        open_unlabelled(str(folder({"a.txt": b""}, "other")))


@pytest.mark.parametrize("name", ["{a,b}", "x{000..002}", "[1] a", "a*b"])
def test_a_name_with_braces_or_brackets_that_exists_is_taken_literally(name, folder, png):
    root = folder({"0.png": png(0)}, name)
    folder({"1.png": png(1)}, "a")
    assert locate(str(root)) == [root]
    assert len(open_unlabelled(str(root))) == 1


def test_a_selection_of_nothing_skips_no_plain_image():
    def head():
        raise AssertionError("opened")

    for name in ("a.jpg", "b/c.PNG", "lost.png", "@home/a.png", "_x/a.webp"):
        assert Selection().skipped_because(name, head) == ""


@pytest.mark.parametrize("options", [{"include": ["*.jpg"]}, {"include": ["test/*"]}, {"exclude": ["*/0.*"]}])
def test_patterns_that_leave_nothing_of_a_split_are_reported_with_what_they_skip(source, png, options):
    path = source({"train/a/0.png": png(0), "test/a/1.png": png(1)})
    with pytest.raises(DataError, match=r"/train holds no image that is used \(\d files skipped: \d (not )?matched by"):
        _ = CuratedImages(path=path, **options).training


def test_tar_files_in_a_tar_file_are_not_suggested_as_shards(tar, png):
    inner = tar([("0.png", png(0))], "inner.tar").read_bytes()
    with pytest.raises(DataError, match="holds no image but 1 tar files, which are not read: unpack it"):
        _ = UncuratedImages(path=str(tar([("inner.tar", inner)], "outer.tar"))).training
