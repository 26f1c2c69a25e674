"""Folders, tar files and shards as tables of images: which rows, in which order, with which labels."""

import os

import pytest
import torch

from ssl_lightning.data import ProbeSet
from ssl_lightning.data.dataset import InMemoryImages
from ssl_lightning.data.packs import locate, open_labelled, open_unlabelled, splits
from ssl_lightning.data.stored import StoredImages
from ssl_lightning.errors import UsageError


def numbers(dataset, number_of, rows=None):
    rows = torch.arange(len(dataset)) if rows is None else torch.tensor(rows)
    images, valid = dataset.read(rows)
    return [number_of(image) if ok else None for image, ok in zip(images, valid.tolist(), strict=True)]


@pytest.fixture
def classes(png):
    names = ["train/cat/b.png", "train/cat/a.PNG", "train/dog/deep/c.png", "test/cat/d.png", "test/dog/e.png"]
    return {name: png(number) for number, name in enumerate(names)} | {"train/notes.txt": b"no image"}


@pytest.mark.parametrize("layout", ["folder", "tar", "tar.xz"])
def test_class_folders_give_labels_in_a_folder_and_in_a_tar(layout, folder, tar, classes, number_of):
    if layout == "folder":
        path = folder(classes)
    else:
        path = tar(classes.items(), f"images.{layout}", "w:xz" if layout == "tar.xz" else "w")
    train, test = (open_labelled(str(path), split) for split in ("train", "test"))
    assert train.classes == test.classes == ["cat", "dog"]
    assert (numbers(train, number_of), train.labels.tolist()) == ([1, 0, 2], [0, 0, 1])
    assert (numbers(test, number_of), test.labels.tolist()) == ([3, 4], [0, 1])
    assert train.name(2) == f"{path}/train/dog/deep/c.png"
    assert splits(str(path)) == ["test", "train"]


def test_class_folders_without_a_split(folder, png, number_of):
    dataset = open_labelled(str(folder({"b/1.png": png(1), "a/2.png": png(2)})), None)
    assert (dataset.classes, dataset.labels.tolist(), numbers(dataset, number_of)) == (["a", "b"], [0, 1], [2, 1])


def test_order_is_that_of_the_bytes_of_names_and_a_copy_has_the_same_fingerprint(folder, png, number_of):
    names = ["Z.png", "a.png", "a/b.png", "é.png", "☃.png", "10.png", "9.png", "new\nline.png"]
    files = {name: png(number) for number, name in enumerate(names)}
    dataset = open_unlabelled(str(folder(files)))
    expected = sorted(range(len(names)), key=lambda n: names[n].encode())
    assert numbers(dataset, number_of) == expected
    other = open_unlabelled(str(folder(dict(reversed(files.items())), "elsewhere")))
    assert dataset.fingerprint == other.fingerprint
    assert dataset.labels.tolist() == [-1] * len(names)


def test_names_that_are_no_text_are_rows_too(folder, png, number_of):
    root = folder({"a.png": png(0)})
    with open(os.fsencode(root) + b"/\xff\xfe.png", "wb") as stream:
        stream.write(png(1))
    assert numbers(open_unlabelled(str(root)), number_of) == [0, 1]


def test_a_fingerprint_changes_with_a_name_a_size_or_a_row(folder, png):
    plain = {"a.png": png(0), "b.png": png(1)}
    variants = [
        plain,
        {**plain, "c.png": png(2)},
        {"a.png": png(0), "d.png": png(1)},
        {**plain, "b.png": png(1, (90, 99))},
    ]
    prints = {open_unlabelled(str(folder(files, str(n)))).fingerprint for n, files in enumerate(variants)}
    assert len(prints) == 4


def test_links_to_files_and_folders_are_followed_but_no_loop(folder, png, number_of):
    root = folder({"a/1.png": png(1)})
    (root / "z.png").symlink_to(root / "a" / "1.png")
    (root / "b").symlink_to(root / "a")
    (root / "a" / "loop").symlink_to(root)
    (root / "dead.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "pipe.png")
    assert numbers(open_unlabelled(str(root)), number_of) == [1, 1, 1]


def test_shards_are_one_table_with_their_numbers_as_sample_ids(tar, png, number_of, tmp_path):
    for shard in range(3):
        members = [(f"{shard * 2 + k:06d}.{end}", png(shard * 2 + k)) for k in range(2) for end in ("png", "json")]
        tar(members, f"pool-{shard:03d}.tar")
    by_glob = open_unlabelled(str(tmp_path / "pool-*.tar"))
    by_braces = open_unlabelled(str(tmp_path / "pool-{000..002}.tar"))
    assert numbers(by_glob, number_of) == list(range(6)) == by_glob.sample_ids.tolist()
    assert by_glob.fingerprint == by_braces.fingerprint
    assert by_glob.name(3) == f"{tmp_path}/pool-001.tar/000003.png"
    assert numbers(open_unlabelled(str(tmp_path / "pool-{000,002}.tar")), number_of) == [0, 1, 4, 5]


def test_sample_ids_are_rows_where_names_are_no_numbers(folder, png):
    assert open_unlabelled(str(folder({"x.png": png(0), "7.png": png(1)}))).sample_ids.tolist() == [0, 1]
    assert open_unlabelled(str(folder({"a/7.png": png(0), "b/7.png": png(1)}, "twice"))).sample_ids.tolist() == [0, 1]
    assert open_unlabelled(str(folder({"a/8.png": png(0), "b/7.png": png(1)}, "once"))).sample_ids.tolist() == [8, 7]


BAD = {"empty.png": b"", "text.jpg": b"not an image", "page.jpeg": b"<html></html>"}


@pytest.mark.parametrize("sizes", [[(6, 6)] * 3, [(6, 6), (5, 9), (6, 6)]])
@pytest.mark.parametrize("layout", ["folder", "tar"])
def test_unreadable_images_keep_their_rows_and_no_other_takes_their_place(sizes, layout, folder, tar, png, number_of):
    good = {f"{name}.png": png(number, sizes[number]) for number, name in enumerate("chz")}
    files = good | BAD | {"half.png": png(9)[:40]}
    dataset = open_unlabelled(str(folder(files) if layout == "folder" else tar(files.items())))
    assert isinstance(dataset, InMemoryImages) == (sizes[1] == (6, 6))
    assert numbers(dataset, number_of) == [0, None, 1, None, None, None, 2]
    images, valid = dataset.read(torch.tensor([1, 2]))
    assert valid.tolist() == [False, True]
    assert not images[0].any()


def test_a_file_that_vanishes_later_is_an_invalid_row(folder, png, number_of):
    root = folder({"a.png": png(0), "b.png": png(1, (3, 5))})
    dataset = open_unlabelled(str(root))
    (root / "a.png").unlink()
    assert numbers(dataset, number_of) == [None, 1]


def test_one_odd_size_that_the_first_look_missed_keeps_images_on_disk(folder, png, number_of):
    files = {f"{number:03d}.png": png(number, (4, 6) if number == 100 else (6, 6)) for number in range(200)}
    dataset = open_unlabelled(str(folder(files)))
    assert isinstance(dataset, StoredImages)
    assert numbers(dataset, number_of, [99, 100]) == [99, 100]


def test_names_are_looked_up_in_the_data_folder_and_never_in_the_current_one(folder, png, tmp_path, monkeypatch):
    pack, here = folder({"a.png": png(0)}, "packs/mine"), folder({"b.png": png(1)}, "here/mine")
    folder({"c.png": png(2)}, "here/deep/mine")
    monkeypatch.chdir(here.parent)
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(pack.parent))
    assert locate("mine") == [pack]
    assert locate(str(here)) == [here]
    assert [path.resolve() for path in locate("./mine")] == [here]
    assert [path.resolve() for path in locate("deep/mine")] == [here.parent / "deep" / "mine"]
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"mine not found in .*SSL_LIGHTNING_DATA .*or give \./mine for the one in"):
        locate("mine")
    monkeypatch.delenv("SSL_LIGHTNING_DATA")
    monkeypatch.chdir(tmp_path)
    pack.parent.rename(tmp_path / "data")
    assert [path.resolve() for path in locate("mine")] == [tmp_path / "data" / "mine"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing.tar", r"nothing.tar not found.*SSL_LIGHTNING_DATA"),
        ("pool-*.tar", r"pool-\*.tar not found"),
        ("shard-{000..004}.tar", r"shard-001.tar and 3 more not found"),
        ("empty", "empty holds no image"),
        ("notes.doc", "neither a folder nor a tar file"),
        ("broken.tar", "broken header"),
    ],
)
def test_what_cannot_be_opened_is_reported_in_one_line(path, message, tmp_path, tar, png, monkeypatch):
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path))
    tar([("0.png", png(0))], "shard-000.tar")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.doc").write_text("x")
    (tmp_path / "broken.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match=message) as error:
        open_unlabelled(path)
    assert "\n" not in str(error.value)


def test_a_path_that_is_taken_as_it_stands_is_to_be_fixed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_LIGHTNING_DATA", "packs")
    messages = {
        "/tmp/nothing/here": "/tmp/nothing/here not found: fix the path",
        "/tmp/nothing-{0..2}.tar": "/tmp/nothing-0.tar and 2 more not found: fix the path",
        "./images": f"./images not found in {tmp_path}: fix the path",
        "../images": f"../images not found in {tmp_path}: fix the path",
        "deep/images": "deep/images not found in packs or the current folder: "
        "set SSL_LIGHTNING_DATA to the folder that holds it",
    }
    for path, expected in messages.items():
        with pytest.raises(ValueError, match="not found") as error:
            locate(path)
        assert str(error.value) == expected


def test_a_missing_split_names_those_that_are_there(folder, classes):
    with pytest.raises(ValueError, match="no split 'val', only test, train"):
        open_labelled(str(folder(classes)), "val")


def test_a_image_outside_the_class_folders_is_named(folder, png):
    with pytest.raises(ValueError, match=r"'stray.png' outside a class folder"):
        open_labelled(str(folder({"train/a/1.png": png(0), "train/stray.png": png(1)})), "train")


def test_compressed_shards_are_rejected(tar, png, tmp_path):
    for shard in range(2):
        tar([(f"{shard}.png", png(shard))], f"p-{shard}.tar.gz", "w:gz")
    with pytest.raises(ValueError, match="unpack shards to plain tar files"):
        open_unlabelled(str(tmp_path / "p-*.tar.gz"))


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-100-python", "stl10_binary"])
def test_a_missing_torchvision_folder_reports_how_to_get_it(name, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=rf"get it by python -c .*\('{tmp_path}', download=True\)"):
        open_labelled(name, "train")


@pytest.mark.slow
def test_real_cifar_has_its_counts_and_each_row_its_own_image(pack):
    train, test = (open_labelled(pack("cifar10.tar.xz"), split) for split in ("train", "test"))
    assert (len(train), len(test), train.size) == (50_000, 10_000, (32, 32))
    assert train.labels.bincount().tolist() == [5_000] * 10
    assert test.labels.bincount().tolist() == [1_000] * 10
    assert train.classes == test.classes
    assert all(train.classes[train.labels[row]] == train.name(row).split("/")[-2] for row in range(0, 50_000, 997))
    assert train.read(torch.arange(50_000))[1].all()


def test_the_real_uncurated_pool_has_its_rows_and_ids(pack):
    dataset = open_unlabelled(pack("uncurated-*.tar"))
    assert dataset.sample_ids.tolist() == list(range(6_000))
    images, valid = dataset.read(torch.arange(0, 6_000, 97))
    assert valid.all()
    assert all(min(image.shape[1:]) <= 128 for image in images)


def test_a_folder_is_decoded_once_while_a_run_uses_it_but_listed_anew(folder, png, number_of):
    root = folder({f"train/a/{n}.png": png(n) for n in range(3)})
    first = open_labelled(str(root), "train")
    assert open_labelled(str(root), "train").dataset is first.dataset
    folder({"train/a/9.png": png(9)})
    assert numbers(open_labelled(str(root), "train"), number_of) == [0, 1, 2, 9]


@pytest.mark.parametrize(
    "path",
    ["x-{0..999999999}.tar", "x-{0..999}{0..999}.tar", "x{a,b}" * 50, "{a,b}" * 3000, f"x-{{{'0' * 10**6}..1}}.tar"],
    ids=["long", "product", "pairs", "recursion", "digits"],
)
def test_braces_that_mean_more_files_than_anyone_has_are_rejected_at_once(path):
    with pytest.raises(UsageError, match="expected"):
        locate(path)


def test_the_current_folder_is_taken_as_it_is(folder, classes, png, tmp_path, monkeypatch):
    folder({"z.png": png(9)}, "data")
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(folder(classes, "here"))
    for path in (".", "./"):
        assert [found.resolve() for found in locate(path)] == [tmp_path / "here"]
    monkeypatch.chdir(tmp_path / "here" / "train")
    assert [found.resolve() for found in locate("..")] == [tmp_path / "here"]
    monkeypatch.chdir("..")
    train, test = ProbeSet("./train", "./test").open()
    assert train.title == "./train"
    assert (len(train), len(test)) == (3, 2)


def test_a_probe_set_without_its_split_names_one(folder, png):
    path = folder({f"{split}/{name}/0.png": png(0) for split in ("train", "test") for name in ("train", "car")})
    with pytest.raises(ValueError, match=f"found probe set '{path}'; expected .*, such as {path}/train"):
        ProbeSet(str(path), f"{path}/test").open()
    ProbeSet(f"{path}/train", f"{path}/test").open()


@pytest.mark.parametrize("path", ["", "https://example.com/a.tar", "s3://bucket/images"])
def test_what_is_no_local_path_is_one_line(path):
    with pytest.raises(ValueError, match=r"found (an empty path|the address .* as a path) of images; expected"):
        locate(path)
