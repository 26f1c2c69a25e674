"""Labels and metadata in files beside the images of tar files and folders."""

import json

import pytest
import torch

from ssl_lightning.data import CuratedImages, UncuratedImages
from ssl_lightning.data.packs import open_unlabelled
from ssl_lightning.data.sources.folder import folder_table
from ssl_lightning.data.sources.opening import file_table
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.errors import DataError


def sample(key, png, number, **sidecars):
    return {f"{key}.png": png(number)} | {f"{key}.{ending}": content for ending, content in sidecars.items()}


@pytest.fixture
def files(png):
    made = sample("000", png, 0, cls=b"7\n", json=b'{"label": "dog", "n": 3}', txt=b"a dog")
    made |= sample("001", png, 1, cls=b"10", json=b'{"label": "cat", "n": 1}', txt=b"a cat")
    return made | sample("d/002", png, 2, json=b"{broken") | sample("003", png, 3, cls=b"7", json=b'{"label": [1]}')


@pytest.fixture(params=["folder", "tar", "tar.xz", "shards"])
def path(request, files, folder, tar, tmp_path):
    if request.param == "folder":
        return str(folder(files))
    if request.param == "shards":
        items = list(files.items())
        for number, part in enumerate((items[:8], items[8:])):
            tar(part, f"p-{number}.tar")
        return str(tmp_path / "p-*.tar")
    return str(tar(files.items(), f"x.{request.param}", "w:xz" if request.param == "tar.xz" else "w"))


def labels(data):
    return [data.classes[label] if label >= 0 else None for label in data.labels]


def test_sidecars_are_labels_where_they_are_requested(path, caplog):
    plain = UncuratedImages(path=path).training
    assert plain.labels.tolist() == [-1] * 4
    assert not plain.classes
    order = [name.rsplit("/", 1)[-1] for name in plain.names]
    expected = {
        "cls": {"000.png": "7", "001.png": "10", "003.png": "7"},
        "txt": {"000.png": "a dog", "001.png": "a cat"},
        "json": {"000.png": "dog", "001.png": "cat"},
        "json:n": {"000.png": "3", "001.png": "1"},
    }
    for label, values in expected.items():
        data = UncuratedImages(path=path, label=label).training
        assert labels(data) == [values.get(name) for name in order]
        assert f"{4 - len(values)} of 4 images have no label" in caplog.text
        caplog.clear()
        assert data.fingerprint == plain.fingerprint
    assert labels(CuratedImages(path=path, split=None, label="cls").training) == labels(
        UncuratedImages(path=path, label="cls").training
    )


def test_numbers_are_sorted_as_numbers(path):
    assert UncuratedImages(path=path, label="cls").training.classes == ["7", "10"]


@pytest.mark.parametrize(
    ("label", "message"), [("json:x", "has no image with a label, but data.label='json:x'"), ("kind", "kind")]
)
def test_labels_that_are_not_there_are_one_line(path, label, message):
    with pytest.raises(DataError, match=message) as error:
        _ = UncuratedImages(path=path, label=label).training
    assert "\n" not in str(error.value)


def test_the_table_returns_the_sidecar_of_a_row(path, files, tmp_path):
    if "p-*" in path:
        pytest.skip("one table for each shard")
    table = folder_table(tmp_path / "images", "", Selection())[0] if path.endswith("images") else file_table(path)
    for row, name in enumerate(table.names):
        for ending in ("json", "cls", "txt"):
            assert table.sidecar(row, ending) == files.get(name.replace("png", ending))


def test_a_key_ends_at_its_first_dot_if_no_longer_name_is_there(tar, png):
    members = {"a.left.png": png(0), "a.right.png": png(1), "a.json": b"{}", "a.right.json": b"[]", ".png": png(2)}
    table = file_table(str(tar(members.items())))
    assert [(name, table.sidecar(row, "json")) for row, name in enumerate(table.names)] == [
        ("a.left.png", b"{}"),
        ("a.right.png", b"[]"),
    ]


def test_the_output_of_img2dataset_is_read_as_it_is(tmp_path, tar, png, number_of):
    (tmp_path / "laion").mkdir()
    for shard in range(2):
        members = {}
        for number in range(2):
            key = f"{shard:05d}{number:04d}"
            members |= {f"{key}.jpg": png(2 * shard + number), f"{key}.txt": b"caption"}
            members[f"{key}.json"] = json.dumps({"caption": "caption", "url": "http://x", "key": key}).encode()
        tar(members.items(), f"laion/{shard:05d}.tar")
        (tmp_path / "laion" / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (tmp_path / "laion" / f"{shard:05d}_stats.json").write_bytes(b"{}")
    dataset = open_unlabelled(str(tmp_path / "laion"))
    images, valid = dataset.read(torch.arange(4))
    assert valid.all()
    assert [number_of(image) for image in images] == [0, 1, 2, 3]
    assert dataset.sample_ids.tolist() == [0, 1, 10000, 10001]
    assert {reason: len(names) for reason, names in dataset.skipped.items()} == {
        "no image, ending .txt": 4,
        "no image, ending .json": 4,
    }
