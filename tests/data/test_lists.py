"""Lists of image files: their order, labels and missing files, and one line for everything that is no list."""

import json

import pytest
import torch

from ssl_lightning.data import CuratedImages, UncuratedImages
from ssl_lightning.data.packs import open_labelled, open_unlabelled
from ssl_lightning.data.sources.opening import file_table
from ssl_lightning.errors import DataError

KINDS = ["csv", "tsv", "jsonl", "txt"]


def numbers(dataset, number_of):
    images, valid = dataset.read(torch.arange(len(dataset)))
    return [number_of(image) if ok else None for image, ok in zip(images, valid.tolist(), strict=True)]


def written(kind, rows, columns):
    if kind == "txt":
        return "\n".join(row[0] for row in rows)
    if kind == "jsonl":
        return "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    between = "\t" if kind == "tsv" else ","
    return "\r\n".join(between.join(map(str, row)) for row in [columns, *rows])


@pytest.fixture
def list_of(folder):
    """Writes images and a list of some of them."""

    def make(kind, rows, files, columns=("path", "label"), encoding="utf-8"):
        root = folder(files)
        path = root / f"list.{kind}"
        path.write_bytes(written(kind, rows, columns).encode(encoding))
        return path

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_in_the_order_of_the_list(kind, list_of, png, number_of, tmp_path):
    (tmp_path / "out.png").write_bytes(png(8))
    rows = [("b/2.png", 10), ("./1.png", 9), (f"{tmp_path}/out.png", 10), ("b/../../out.png", "")]
    path = list_of(kind, rows, {"1.png": png(1), "b/2.png": png(2), "3.png": png(3)})
    dataset = open_unlabelled(str(path))
    assert numbers(dataset, number_of) == [2, 1, 8, 8]
    assert dataset.labels.tolist() == [-1] * 4
    assert dataset.name(0) == f"{path.parent}/b/2.png"
    names = list(file_table(str(path)).names)
    assert names == ["b/2.png", "1.png", "out.png", "out.png"]  # none leaves its container
    if kind != "txt":
        labelled = open_labelled(str(path), None)
        assert (labelled.labels.tolist(), labelled.classes) == ([1, 0, 1, -1], ["9", "10"])
        assert UncuratedImages(path=str(path), label="label").training.labels.tolist() == [1, 0, 1, -1]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_files_are_unreadable_rows(kind, list_of, png, number_of, tmp_path):
    path = list_of(kind, [("1.png", 0), ("gone.png", 1), ("b", 1)], {"1.png": png(1), "b/2.png": png(2)})
    dataset = open_unlabelled(str(path))
    assert numbers(dataset, number_of) == [1, None, None]
    assert dataset.reason(1) == "missing or locked"
    with pytest.raises(
        DataError, match=r"2 of 3 training images cannot be read \(2 missing or locked\); first: .*gone"
    ):
        UncuratedImages(path=str(path)).setup("fit")
    (path.parent / "1.png").unlink()
    with pytest.raises(DataError, match=r"lists 3 files, and none is there; first: .*/1.png: fix the paths"):
        file_table(str(path))


def test_a_file_that_is_listed_twice_is_two_rows_and_one_line(list_of, png, number_of, caplog):
    path = list_of("txt", [("1.png",), ("2.png",), ("1.png",)], {"1.png": png(1), "2.png": png(2)})
    assert numbers(open_unlabelled(str(path)), number_of) == [1, 2, 1]
    assert caplog.text.count("lists 1 files again that it lists before; each entry is a row") == 1


def test_the_column_of_paths_is_a_usual_one_or_is_named(list_of, png, number_of):
    files = {"1.png": png(1), "2.png": png(2)}
    path = list_of("csv", [("1.png", "2.png")], files, ("file_name", "mask"), "utf-8-sig")
    assert numbers(open_unlabelled(str(path)), number_of) == [1]
    assert numbers(open_unlabelled(f"{path}:mask"), number_of) == [2]
    with pytest.raises(DataError, match=r"has the columns file_name, mask; expected 'x': give .*list.csv:<column>"):
        open_unlabelled(f"{path}:x")
    path = list_of("csv", [("1.png", "2.png")], files, ("a", "b"))
    with pytest.raises(DataError, match=r"has the columns a, b; expected a column such as path, file_name"):
        open_unlabelled(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "path,label\n1.png\n", "line 2 has 1 columns, the first 2"),
        ("x.csv", 'path\n"1.png', "cannot be read as a list"),
        ("x.jsonl", '{"path": "1.png"}\n[1]\n', "line 2 is no JSON object"),
        ("x.jsonl", "[" * 100_000, "cannot be read as a list"),
        ("x.jsonl", '{"path": 5}', "holds '5' as a path"),
        ("x.txt", "https://example.com/1.png", "lists the address https://example.com/1.png; expected paths"),
        ("x.txt", "a\0b", "as a path; expected the path of a file"),
        ("x.txt", "a" * 5000, "as a path; expected the path of a file"),
        ("x.txt", "", "holds no image"),
        ("x.csv", "path\n", "holds no image"),
    ],
)
def test_what_is_no_list_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as error:
        open_unlabelled(str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert name in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_in_a_folder_of_images_has_its_labels(kind, folder, png):
    files = {f"{split}/{n}.png": png(n) for split in ("train", "test") for n in range(3)}
    rows = [("2.png", "cat"), ("0.png", "dog")]
    for split in ("train", "test"):
        files[f"{split}/metadata.{kind}"] = written(kind, rows, ("file_name", "kind")).encode()
    root = folder(files)
    train = UncuratedImages(path=f"{root}/train", label="kind").training
    assert (train.labels.tolist(), train.classes) == ([1, -1, 0], ["cat", "dog"])
    assert UncuratedImages(path=f"{root}/train").training.labels.tolist() == [-1] * 3
    assert CuratedImages(path=str(root), label="kind").training.labels.tolist() == [1, -1, 0]
    with pytest.raises(DataError, match=r"has no column 'x'; expected data.label of file_name, kind"):
        _ = UncuratedImages(path=f"{root}/train", label="x").training
    with pytest.raises(DataError, match=r"has no metadata.csv or metadata.jsonl with labels, but data.label='kind'"):
        _ = UncuratedImages(path=str(root), label="kind").training
