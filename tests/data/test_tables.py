"""Parquet and Arrow with encoded images: which rows, names and labels, and one line for everything that is broken."""

import json
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssl_lightning.data import CuratedImages, ProbeSet, UncuratedImages
from ssl_lightning.data.packs import open_labelled, open_unlabelled, splits
from ssl_lightning.data.sources import recent
from ssl_lightning.data.sources.container import forget_containers
from ssl_lightning.data.sources.labels import ANY_LABEL
from ssl_lightning.data.sources.opening import file_table
from ssl_lightning.errors import DataError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
KINDS = ["parquet", "arrow", "stream", "lz4", "zstd"]


def numbers(dataset, number_of):
    images, valid = dataset.read(torch.arange(len(dataset)))
    return [number_of(image) if ok else None for image, ok in zip(images, valid.tolist(), strict=True)]


def features(names=None, image="image", label="label"):
    described = {image: {"_type": "Image"}, "note": {"dtype": "string", "_type": "Value"}}
    if names:
        described[label] = {"names": names, "_type": "ClassLabel"}
    return {"huggingface": json.dumps({"info": {"features": described}})}


def save(path, columns, kind="parquet", metadata=None, rows_at_once=2):
    table = pa.table(columns).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=rows_at_once)
    elif kind == "stream":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows_at_once)
    else:
        options = pa.ipc.IpcWriteOptions(compression=None if kind == "arrow" else kind)
        with pa.ipc.new_file(path, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=rows_at_once)
    return path


def hugging_face(png, rows, paths=None):
    return pa.array(
        [None if row is None else {"bytes": png(row), "path": paths and paths[n]} for n, row in enumerate(rows)], IMAGE
    )


@pytest.fixture
def table(tmp_path, png):
    """Writes images by number into a table with labels."""

    def make(kind, rows, name="x", **columns):
        ending = "parquet" if kind == "parquet" else "arrow"
        return save(tmp_path / f"{name}.{ending}", {"image": hugging_face(png, rows), **columns}, kind)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_in_any_order_from_every_kind_of_table(kind, table, number_of):
    path = table(kind, [5, 3, 4, 1, 2], note=["a", "b", "c", "d", "e"])
    dataset = open_unlabelled(str(path))
    assert numbers(dataset, number_of) == [5, 3, 4, 1, 2]
    assert dataset.labels.tolist() == [-1] * 5
    assert dataset.name(4) == f"{path}/4"
    found = file_table(str(path))
    assert [found.read(row) for row in (4, 0, 2)] == [found.read(row) for row in (4, 0, 2)]
    assert [len(found.read(row)) for row in range(5)] == found.sizes.tolist()
    assert found.take(torch.tensor([3, 1]).numpy()).read(1) == found.read(1)


def test_all_kinds_of_tables_have_one_fingerprint(table):
    assert len({open_unlabelled(str(table(kind, [1, 2, 3], kind))).fingerprint for kind in KINDS}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_an_image_is_unreadable_and_keeps_its_place(kind, table, number_of):
    dataset = open_unlabelled(str(table(kind, [1, None, 2])))
    assert numbers(dataset, number_of) == [1, None, 2]
    assert dataset.reason(1) == "empty"


def test_a_plain_binary_column_and_the_column_that_a_path_names(tmp_path, png, number_of):
    columns = {"photo": [png(1), png(2)], "thumb": [png(3), None]}
    path = save(tmp_path / "two.parquet", columns)
    with pytest.raises(DataError, match=r"has the image columns photo, thumb; expected one: give .*two.parquet:photo"):
        open_unlabelled(str(path))
    assert numbers(open_unlabelled(f"{path}:thumb"), number_of) == [3, None]
    assert numbers(open_unlabelled(f"{path}:photo"), number_of) == [1, 2]
    with pytest.raises(DataError, match=r"has no image column 'mask'; expected photo, thumb"):
        open_unlabelled(f"{path}:mask")
    marked = save(tmp_path / "marked.parquet", columns, metadata=features(image="thumb"))
    assert numbers(open_unlabelled(str(marked)), number_of) == [3, None]
    with pytest.raises(DataError, match=r"has the columns url, n; expected a column of encoded images"):
        open_unlabelled(str(save(tmp_path / "none.parquet", {"url": ["a"], "n": [1]})))


def test_rows_with_a_path_alone_are_read_beside_the_table(tmp_path, png, number_of):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "b.png").write_bytes(png(7))
    rows = [{"bytes": png(1), "path": "a.png"}, {"bytes": None, "path": "files/b.png"}, {"bytes": None, "path": "c"}]
    path = save(tmp_path / "x.parquet", {"image": pa.array(rows, IMAGE)})
    dataset = open_unlabelled(str(path))
    assert numbers(dataset, number_of) == [1, 7, None]
    assert (dataset.name(1), dataset.reason(2)) == (f"{tmp_path}/files/b.png", "missing or locked")


@pytest.mark.parametrize("odd", ["../b.png", "/etc/hostname", "a/../../b.png"])
def test_a_path_that_leaves_the_folder_of_the_table_is_never_opened(tmp_path, png, odd):
    path = save(tmp_path / "x.parquet", {"image": pa.array([{"bytes": None, "path": odd}], IMAGE)})
    with pytest.raises(DataError, match="holds a path that leaves its folder"):
        open_unlabelled(str(path))
    whole = save(tmp_path / "y.parquet", {"image": pa.array([{"bytes": png(1), "path": odd}], IMAGE)})
    assert open_unlabelled(str(whole)).name(0) == f"{whole}/0"


NUMBERED = ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]
HF = {
    "data": [f"data/{name}.parquet" for name in NUMBERED],
    "top": ["train-0.parquet", "train-1.parquet", "test.parquet"],
    "config": [f"mnist/{name}.parquet" for name in NUMBERED],
    "folders": ["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"],
    "config and folders": ["mnist/train/0000.parquet", "mnist/train/0001.parquet", "mnist/test/0000.parquet"],
    "saved": ["train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow", "test/data-00000-of-00001.arrow"],
    "cache": ["x-train-00000-of-00002.arrow", "x-train-00001-of-00002.arrow", "x-test.arrow"],
}  # fmt: skip


@pytest.mark.parametrize("layout", HF)
def test_a_downloaded_dataset_of_hugging_face_is_trained_on_and_evaluated(layout, tmp_path, png, number_of):
    numbered = [[1, 2], [3], [4, 5]]
    labels = [[1, 0], [1], [0, 1]]
    for name, rows, own in zip(HF[layout], numbered, labels, strict=True):
        columns = {"image": hugging_face(png, rows), "label": own}
        kind = "stream" if name.endswith("arrow") else "parquet"
        save(tmp_path / "d" / name, columns, kind, features(["zebra", "ant"]))
    (tmp_path / "d" / "README.md").write_text("---")
    path = str(tmp_path / "d")
    data = CuratedImages(path=path)
    train, test = data.probes["d"]
    assert (numbers(train, number_of), train.labels.tolist()) == ([1, 2, 3], [1, 0, 1])
    assert (numbers(test, number_of), test.labels.tolist()) == ([4, 5], [0, 1])
    assert train.classes == test.classes == ["zebra", "ant"]
    assert splits(path) == ["test", "train"]
    assert torch.equal(data.labels, train.labels)
    assert [len(split) for split in ProbeSet(f"{path}/train", f"{path}/test").open()] == [3, 2]
    assert len(UncuratedImages(path=path).training) == 5
    with pytest.raises(DataError, match="has no split 'val', only test, train"):
        open_labelled(path, "val")


def test_labels_are_of_the_named_or_the_usual_column(tmp_path, png):
    columns = {"img": hugging_face(png, [1, 2, 3]), "fine": [2, 0, -1], "coarse": ["b", None, "a"]}
    path = save(tmp_path / "x.parquet", columns, metadata=features(["p", "q", "r"], image="img", label="fine"))
    both = CuratedImages(path=str(path), split=None)
    assert (both.labels.tolist(), both.training.classes) == ([2, 0, -1], ["p", "q", "r"])
    coarse = CuratedImages(path=str(path), split=None, label="coarse")
    assert (coarse.labels.tolist(), coarse.training.classes) == ([1, -1, 0], ["a", "b"])
    with pytest.raises(DataError, match=r"has no column 'x' of labels; expected data.label of fine, coarse"):
        _ = CuratedImages(path=str(path), split=None, label="x").training
    bare = save(tmp_path / "bare.parquet", {"image": [png(1)]})
    with pytest.raises(DataError, match=r"has no labels; expected a column such as 'label': name it by --data.label"):
        open_labelled(str(bare), None)
    with pytest.raises(DataError, match=r"has no splits, but split='train' is requested: give --data.split null"):
        open_labelled(str(path), "train")
    odd = save(tmp_path / "odd.parquet", {"image": [png(1)], "label": [7]}, metadata=features(["p"]))
    with pytest.raises(DataError, match="has the label 7, but names of 1 classes"):
        open_labelled(str(odd), None)


def test_shards_join_their_classes_by_name(tmp_path, png):
    for number, labels in enumerate((["cat"], ["ant", "cat"])):
        columns = {"image": hugging_face(png, range(len(labels))), "label": labels}
        save(tmp_path / f"t-{number}.parquet", columns)
    dataset = open_labelled(str(tmp_path / "t-*.parquet"), None)
    assert [dataset.classes[label] for label in dataset.labels] == ["cat", "ant", "cat"]


def test_patterns_apply_to_the_names_of_rows(tmp_path, png):
    path = save(tmp_path / "x.parquet", {"image": hugging_face(png, [1, 2, 3], ["a/1.png", "a/2.png", "b/3.png"])})
    dataset = UncuratedImages(path=str(path), include=["a/*"], exclude=["2.png"]).training
    assert [name.split(".parquet/")[1] for name in dataset.names] == ["a/1.png"]
    assert dataset.skipped == {"matched by exclude": ["a/2.png"], "not matched by include": ["b/3.png"]}


@pytest.mark.parametrize("kind", ["parquet", "zstd"])
def test_of_the_blocks_that_were_read_some_are_kept(kind, table, monkeypatch):
    path = table(kind, list(range(20)))
    found = file_table(str(path))
    forget_containers()
    blocks = recent.RecentBlocks(most_bytes=700)
    for module in ("parquet", "arrow"):
        monkeypatch.setattr(f"ssl_lightning.data.sources.{module}.RECENT", blocks)
    content = [found.read(row) for row in range(20)]
    assert [found.read(row) for row in reversed(range(20))] == content[::-1]
    assert blocks.held <= 700
    assert 1 <= len(blocks._blocks) < 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_is_replaced_is_read_again(kind, table, number_of):
    assert numbers(open_unlabelled(str(table(kind, [1, 2, 3]))), number_of) == [1, 2, 3]
    other = table(kind, [7, 8, 9, 5], "other")
    path = other.with_stem("x")
    other.rename(path)
    assert numbers(open_unlabelled(str(path)), number_of) == [7, 8, 9, 5]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def zeroed(path):
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes(200) + content[400:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fault", [cut, zeroed, lambda path: path.write_bytes(b"PAR1"), lambda path: path.write_bytes(b"")]
)
def test_a_damaged_table_is_one_line_with_its_name(kind, fault, table):
    path = table(kind, list(range(8)))
    fault(path)
    with pytest.raises(DataError, match=r"cannot be read as .*: make or copy it again|has the columns") as error:
        open_unlabelled(str(path))
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_stream_that_is_cut_between_batches_is_no_shorter_one(batches, table):
    path = table("stream", list(range(8)))
    with pa.memory_map(str(path)) as stream:
        reader = pa.MessageReader.open_stream(stream)
        for _ in range(1 + batches):
            reader.read_next_message()
        at = stream.tell()
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(DataError, match="without its end mark"):
        open_unlabelled(str(path))


def test_a_table_that_is_damaged_later_has_unreadable_rows(table, number_of):
    for kind in KINDS:
        path = table(kind, list(range(8)), kind)
        found = file_table(str(path))
        path.write_bytes(b"")
        with pytest.raises(OSError, match=kind[:3]):
            found.read(0)


def test_an_encrypted_table_is_one_line(tmp_path, png):
    path = save(tmp_path / "x.parquet", {"image": [png(1)]})
    content = path.read_bytes()
    path.write_bytes(b"PARE" + content[4:-4] + b"PARE")
    with pytest.raises(DataError, match=r"cannot be read as Parquet \(.*encrypt"):
        open_unlabelled(str(path))


def test_a_dictionary_that_stands_for_gigabytes_is_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    value = bytes(1 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array([value], pa.binary()))
    pq.write_table(pa.table({"image": column}), tmp_path / "x.parquet", row_group_size=400, store_schema=False)
    assert (tmp_path / "x.parquet").stat().st_size < 2 << 20
    monkeypatch.setattr("ssl_lightning.data.sources.parquet.LARGEST_BLOCK", 32 << 20)
    pool = pa.default_memory_pool()
    pa.set_memory_pool(counted := pa.proxy_memory_pool(pool))
    try:
        with pytest.raises(OSError, match="more than"):
            file_table(str(tmp_path / "x.parquet")).read(0)
    finally:
        pa.set_memory_pool(pool)
    assert 32 << 20 < counted.max_memory() < 200 << 20


def test_large_row_groups_and_batches_are_rejected_by_what_they_declare(table, monkeypatch):
    for kind in KINDS:
        module = "parquet" if kind == "parquet" else "arrow"
        monkeypatch.setattr(f"ssl_lightning.data.sources.{module}.LARGEST_BLOCK", 100)
        with pytest.raises(DataError, match=r"holds a (row group|batch) of [\d,]+ bytes; expected at most 100: write"):
            file_table(str(table(kind, [1, 2], kind)))


def test_a_compressed_batch_that_declares_terabytes_is_not_unpacked(table):
    path = table("zstd", [1, 2])
    found = file_table(str(path))
    assert found.sizes.tolist() == [len(found.read(0)), len(found.read(1))]
    content = path.read_bytes()
    at = content.index(b"\x28\xb5\x2f\xfd") - 8  # a frame of zstd behind its declared length
    path.write_bytes(content[:at] + struct.pack("<q", 1 << 42) + content[at + 8 :])
    with pytest.raises(DataError, match=r"holds a batch of [\d,]{16,} bytes"):
        file_table(str(path))


def test_broken_offsets_are_not_followed(tmp_path, png):
    path = save(tmp_path / "x.arrow", {"image": [png(1), png(2)]}, "arrow")
    size = len(png(1))
    content = path.read_bytes()
    offsets = struct.pack("<iii", 0, size, size + len(png(2)))
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, struct.pack("<iii", 0, size, 1 << 30)))
    with pytest.raises(DataError, match="cannot be read as Arrow"):
        open_unlabelled(str(path))


def test_a_dictionary_column_is_one_line(tmp_path, png):
    columns = {"image": [png(1)], "label": pa.array(["a"]).dictionary_encode()}
    with pytest.raises(DataError, match="the dictionary column 'label'"):
        open_labelled(str(save(tmp_path / "x.arrow", columns, "arrow")), None)
    assert file_table(str(save(tmp_path / "x.parquet", columns)), label=ANY_LABEL).classes == ["a"]
