"""A subset keeps exactly the rows that a file lists, and rejects a file made for other data."""

from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ssl_lightning.data.dataset import InMemoryImages
from ssl_lightning.data.subset import Subset


@pytest.fixture(scope="module")
def dataset():
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 2, 2).contiguous()
    return InMemoryImages(images, torch.arange(10) % 2, ["a", "b"], sample_ids=torch.arange(10) * 3 + 100)


@pytest.fixture
def stage(tmp_path):
    def write(labels, data=None):
        path = tmp_path / "stage.safetensors"
        save_file({"labels": torch.tensor(labels)}, path, metadata=None if data is None else {"data": data})
        return str(path)

    return write


@pytest.fixture
def listed(tmp_path):
    def write(data=None, **columns):
        table = pa.table(columns)
        if data is not None:
            table = table.replace_schema_metadata({"data": data})
        pq.write_table(table, tmp_path / "list.parquet")
        return str(tmp_path / "list.parquet")

    return write


def rows_of(selection):
    return selection.read(torch.arange(len(selection)))[0][:, 0, 0, 0].tolist()


def test_a_cluster_of_a_stage_file(dataset, stage):
    path = stage([0, 1, 2, 1, -1, 1, 0, 0, 2, -1], dataset.fingerprint)
    chosen = Subset(path, value=1).of(dataset)
    assert rows_of(chosen) == [1, 3, 5]
    assert chosen.sample_ids.tolist() == [103, 109, 115]
    assert rows_of(Subset(path).of(dataset)) == [0, 1, 2, 3, 5, 6, 7, 8]


@settings(deadline=None)  # the first one imports pyarrow
@given(st.permutations(range(10)).flatmap(lambda rows: st.integers(1, 10).map(lambda n: rows[:n])))
def test_a_list_of_sample_ids_in_any_order_gives_rows_in_theirs(rows):
    import tempfile

    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 2, 2).contiguous()
    dataset = InMemoryImages(images, sample_ids=torch.arange(10).flip(0) * 3)
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"sample_id": dataset.sample_ids[rows].tolist()}), f"{folder}/kept.parquet")
        assert rows_of(Subset(f"{folder}/kept.parquet").of(dataset)) == sorted(rows)


def test_a_column_of_a_list(dataset, listed):
    path = listed(sample_id=[100, 103, 106, 127], group=[5, 6, 5, 6])
    assert rows_of(Subset(path, "group", 5).of(dataset)) == [0, 2]
    assert rows_of(Subset(path, "group", 6).of(dataset)) == [1, 9]


def test_disjoint_subsets_cover_all_rows(dataset, stage):
    path = stage([0, 1, 2, 1, 0, 1, 0, 0, 2, 2])
    parts = [rows_of(Subset(path, value=cluster).of(dataset)) for cluster in range(3)]
    assert sorted(chain(*parts)) == list(range(10))


def test_misfits_are_rejected_by_name(dataset, stage, listed, tmp_path):
    labels = [0] * 10
    (tmp_path / "bad.safetensors").write_bytes(b"junk")
    (tmp_path / "x.csv").write_text("")
    for subset, message in [
        (Subset("gone.parquet"), "gone.parquet not found"),
        (Subset(stage(labels[:9])), "has 9 rows, the data 10"),
        (Subset(str(tmp_path / "bad.safetensors")), "is not a whole cluster file"),
        (Subset(str(tmp_path / "x.csv")), "neither .safetensors nor .parquet"),
    ]:
        with pytest.raises(ValueError, match=message):
            subset.of(dataset)
    with pytest.raises(ValueError, match="made for data other, found"):
        Subset(stage(labels, "other")).of(dataset)
    with pytest.raises(ValueError, match="cluster=4; found 0"):
        Subset(stage(labels), value=4).of(dataset)
    with pytest.raises(ValueError, match="only 'cluster'"):
        Subset(stage(labels), "source").of(dataset)
    with pytest.raises(ValueError, match="made for data other, found"):
        Subset(listed("other", sample_id=[100])).of(dataset)
    with pytest.raises(ValueError, match="lists sample 101 and 1 more"):
        Subset(listed(sample_id=[100, 101, 200])).of(dataset)
    with pytest.raises(ValueError, match="no column 'cluster', only sample_id, x"):
        Subset(listed(sample_id=[100], x=[1]), value=3).of(dataset)
