"""Labels and metadata of a manifest: from files beside images, columns and lists, and in training."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_lightning.data import UncuratedImages
from ssl_lightning.data.manifest.annotations import LARGEST_METADATA
from ssl_lightning.data.manifest.build import build, in_words
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.errors import DataError, UsageError
from tests.data.manifest.small_pools import built, image, rows, write_folder, write_tar

JSON = SourceOptions(label="json:kind", metadata=True)


def annotated(out):
    return {row["member"]: (row["label"], row["metadata"]) for row in rows(out)}


def beside(kinds):
    """Images with a `.json` file each."""
    files = {f"{number}.png": image(number) for number in kinds}
    return files | {
        f"{number}.json": json.dumps({"kind": kind, "n": number}).encode() for number, kind in kinds.items()
    }


@pytest.mark.parametrize("write", [write_tar, write_folder])
def test_files_beside_the_images_of_shards_and_folders(tmp_path, write):
    files = beside({1: "cat", 2: "dog", 3: 7}) | {"4.png": image(4), "5.png": image(5), "5.json": b"[1]"}
    source = tmp_path / ("a.tar" if write is write_tar else "images")
    write(source, files)
    built(tmp_path / "pool.parquet", source, options=JSON)
    found = annotated(tmp_path / "pool.parquet")
    assert {name: label for name, (label, _) in found.items()} == {
        "1.png": "cat", "2.png": "dog", "3.png": "7", "4.png": None, "5.png": None
    }  # fmt: skip
    assert json.loads(found["2.png"][1]) == {"kind": "dog", "n": 2}
    assert [found[f"{number}.png"][1] for number in (4, 5)] == [None, None]
    built(tmp_path / "plain.parquet", source)
    assert set(annotated(tmp_path / "plain.parquet").values()) == {(None, None)}


def test_a_build_reports_how_many_files_have_labels_and_metadata(tmp_path):
    write_folder(tmp_path / "images", beside({1: "cat", 2: "dog"}) | {"3.png": image(3)})
    source, out = [str(tmp_path / "images")], tmp_path / "pool.parquet"

    def lines(options):
        first, *others = in_words(build(source, out, options, workers=1), out)
        assert first.startswith("1 part, ")
        return others[2:]

    assert lines(JSON) == ["2 with a label, 2 with metadata, of 3 files"]
    (tmp_path / "images/1.png").unlink()
    assert lines(JSON) == ["1 with a label, 1 with metadata, of 2 files"]
    nothing = "no file has a label: give another --label if there are some"
    assert lines(SourceOptions(label="json:other")) == ["0 with a label, of 2 files", nothing]
    assert lines(SourceOptions()) == []


def test_every_kind_of_label(tmp_path):
    write_tar(tmp_path / "a.tar", {"1.png": image(1), "1.cls": b" 3 ", "1.txt": b"a c\xffaption\n"})
    for label, expected in (("cls", "3"), ("txt", "a c\ufffdaption"), ("json", None)):
        built(tmp_path / f"{label}.parquet", tmp_path / "a.tar", options=SourceOptions(label=label))
        assert annotated(tmp_path / f"{label}.parquet") == {"1.png": (expected, None)}
    table = pa.table({"image": [image(1), image(2)], "cls": ["x", None]})
    pq.write_table(table, tmp_path / "t.parquet")
    built(tmp_path / "table.parquet", tmp_path / "t.parquet", options=SourceOptions(label="cls"))
    assert sorted(str(label) for label, _ in annotated(tmp_path / "table.parquet").values()) == ["None", "x"]
    write_folder(tmp_path / "images", {"1.png": image(1), "2.png": image(2), "metadata.csv": b"file_name,c\n2.png,b\n"})
    built(tmp_path / "list.parquet", tmp_path / "images", options=SourceOptions(label="c"))
    assert annotated(tmp_path / "list.parquet") == {"1.png": (None, None), "2.png": ("b", None)}
    for wrong, message in (("other", "no column|no column of labels|'other'"), ("*", r"'\*'|label")):
        with pytest.raises(DataError, match=message):
            built(tmp_path / "wrong.parquet", tmp_path / "t.parquet", options=SourceOptions(label=wrong * 2))


def test_strange_files_are_no_metadata(tmp_path):
    strange = {
        "1": b"{", "2": b"\xff\xfe", "3": b'{"kind": "\\ud800"}', "4": b'{"kind": ["a"]}', "5": b"[" * 100_000,
        "6": json.dumps({"kind": "x" * LARGEST_METADATA}).encode(), "7": b'{"kind": ""}', "8": b'{"kind": null}',
    }  # fmt: skip
    files = {f"{name}.json": content for name, content in strange.items()}
    write_tar(tmp_path / "a.tar", files | {f"{name}.png": image(int(name)) for name in strange})
    built(tmp_path / "pool.parquet", tmp_path / "a.tar", options=JSON)
    found = annotated(tmp_path / "pool.parquet")
    assert {name[0]: label for name, (label, _) in found.items() if label} == {"3": "?", "6": "x" * LARGEST_METADATA}
    assert [name[0] for name, (_, metadata) in found.items() if metadata] == ["3", "4", "7", "8"]


def test_changed_files_beside_images_are_read_again_and_images_are_not(tmp_path):
    write_folder(tmp_path / "images", beside({1: "cat", 2: "dog"}))
    out = tmp_path / "pool.parquet"
    built(out, tmp_path / "images", options=JSON)
    (tmp_path / "images" / "2.json").write_text('{"kind": "wolf"}')
    changes = built(out, tmp_path / "images", options=JSON)
    assert {name: label for name, (label, _) in annotated(out).items()} == {"1.png": "cat", "2.png": "wolf"}
    assert [row["sample_id"] for row in rows(out)] == [0, 1]
    assert (changes.new, changes.vanished) == (0, 0)
    (tmp_path / "images" / "1.json").unlink()
    built(out, tmp_path / "images", options=JSON)
    assert annotated(out)["1.png"] == (None, None)


def test_jobs_write_the_same_bytes(tmp_path):
    for number in range(4):
        write_tar(tmp_path / f"s{number}.tar", beside({number: "a", 10 + number: "b"}))
    for name, jobs in (("one", 1), ("three", 3)):
        (tmp_path / name).mkdir()
        built(tmp_path / name / "pool.parquet", tmp_path / "s*.tar", options=JSON, jobs=jobs)
    assert (tmp_path / "one/pool.parquet").read_bytes() == (tmp_path / "three/pool.parquet").read_bytes()


def test_training_takes_them_for_reports(tmp_path):
    kinds = {1: "dog", 2: "cat", 3: "dog"}
    write_tar(tmp_path / "a.tar", beside(kinds) | {"4.png": image(4), "0.png": b"broken"})
    manifest = tmp_path / "pool.parquet"
    built(manifest, tmp_path / "a.tar", options=JSON)
    for label, classes in (
        ("label", ["cat", "dog"]),
        ("metadata:kind", ["cat", "dog"]),
        ("metadata:n", ["1", "2", "3"]),
    ):
        data = UncuratedImages(path=str(manifest), label=label)
        found = [classes[label] if label >= 0 else None for label in data.training.labels.tolist()]
        expected = [*map(str, kinds), None] if label == "metadata:n" else [*kinds.values(), None]
        assert data.training.classes == classes
        assert found == expected
    assert set(UncuratedImages(path=str(manifest)).training.labels.tolist()) == {-1}
    with pytest.raises(UsageError, match=r"data\.label='kind' for the manifest .* expected label or metadata:<key>"):
        _ = UncuratedImages(path=str(manifest), label="kind").training
    with pytest.raises(UsageError, match=r"data\.label='metadata:' for the manifest"):
        _ = UncuratedImages(path=str(manifest), label="metadata:").training
    with pytest.raises(DataError, match=r"found no usable image of .* with 'metadata:color'"):
        _ = UncuratedImages(path=str(manifest), label="metadata:color").training
