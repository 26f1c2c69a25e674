"""Damage of stage files, feature files and lists: every changed bit is found, or changes nothing that is read."""

import json
import logging
import os
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from ssl_lightning.clustering import Clustering, KMeans
from ssl_lightning.clustering.clusterer import load_labels
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.clustering.list_file import read_list, write_list
from ssl_lightning.errors import DataError


def as_bits(values):
    return [value.numpy().tobytes() if isinstance(value, torch.Tensor) else value for value in values]


def read_stage(path):
    clustering, metadata = Clustering.load(path)
    labels, _ = load_labels(path)
    names = ("labels", "distances", "centroids", "sizes", "objective")
    return as_bits([*(getattr(clustering, name) for name in names), labels]), metadata


def read_features(path):
    stored = FeatureFile.load(path)
    return as_bits([stored.features, stored.rows, stored.labels]), stored.metadata


def read_columns(path):
    columns, fingerprint = read_list(path, ["sample_id", "cluster"], 8)
    return [values.tolist() for values in columns.values()], fingerprint


@pytest.fixture
def stage(tmp_path):
    features = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    KMeans()(features, 2).save(tmp_path / "stage.safetensors", {"data": "abc", "data_config": '{"a": 1}', "layer": "x"})
    return tmp_path / "stage.safetensors"


@pytest.fixture
def features(tmp_path):
    values = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0, 1, 3, 4, 7])
    FeatureFile(values, rows, torch.tensor([0, 1, -1, 0, 1]), {"data": "abc"}).save(tmp_path / "f.safetensors")
    return tmp_path / "f.safetensors"


@pytest.fixture
def listed(tmp_path):
    columns = {"sample_id": pa.array([3, 5, 8], pa.int64()), "path": pa.array(["a", "b", "c"])}
    columns |= {"cluster": pa.array([0, 1, -1], pa.int64())}
    write_list(tmp_path / "list.parquet", columns, "abc")
    return tmp_path / "list.parquet"


READERS = {"stage": read_stage, "features": read_features, "listed": read_columns}


@pytest.mark.parametrize("kind", READERS)
def test_every_changed_bit_is_found_or_changes_nothing_that_is_read(kind, request, caplog):
    """Bits of the second kind: padding, and the name of the sha256 itself; a missing sha256 is logged."""
    caplog.set_level(logging.CRITICAL)
    path, read = request.getfixturevalue(kind), READERS[kind]
    whole, content = read(path), path.read_bytes()
    accepted = 0
    for place in range(8 * len(content)):
        if kind == "listed" and place % 8 != place // 8 % 8:  # one bit of each byte: there are ten times as many
            continue
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found, facts = read(path)
        except DataError:
            continue
        accepted += 1
        assert found == whole[0], f"bit {place}"
        if isinstance(facts, dict):
            facts = {name: facts.get(name) for name in whole[1]}
        hidden = kind == "listed" and facts is None  # a footer without any metadata, which is logged
        assert hidden or facts == whole[1], f"bit {place}"
    tried = len(content) * (1 if kind == "listed" else 8)
    assert accepted < tried * (0.9 if kind == "listed" else 0.05)  # parquet has statistics, and a second description


def damaged(tensors, **changes):
    return tensors | {name: torch.as_tensor(value) for name, value in changes.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 2, 1, -1]}, "labels outside -1 to 1"),
        ({"labels": [0, -2, 1, -1]}, "labels outside -1 to 1"),
        ({"labels": [0.0, 0, 1, -1]}, r"labels of torch.float32"),
        ({"labels": [0, 1, 1, -1]}, "sizes that are not the counts"),
        ({"sizes": [3, 1]}, "sizes that are not the counts"),
        ({"centroids": [[0.0], [float("nan")]]}, "not finite"),
        ({"objective": torch.tensor([float("inf")])}, "not finite"),
        ({"distances": [0.1, float("nan"), 0.2, float("nan")]}, "distances that are none"),
        ({"distances": [0.1, -0.5, 0.2, float("nan")]}, "distances that are none"),
        ({"distances": [float("nan")] * 4}, "distances that are none"),  # although there are centroids
        ({"centroids": torch.empty(2, 0), "distances": [0.1, float("nan"), 0.2, float("nan")]}, "that are none"),
    ],
)
def test_an_older_file_is_read_with_a_line_and_its_ranges_are_checked(change, message, tmp_path, caplog):
    path = tmp_path / "old.safetensors"
    tensors = damaged(
        {},
        labels=[0, 0, 1, -1],
        distances=[0.1, 0.2, 0.1, float("nan")],
        centroids=[[0.0], [1.0]],
        sizes=[2, 1],
        objective=torch.tensor([0.4], dtype=torch.float64),
    )
    save_file(tensors, path, {"data": "abc"})
    assert Clustering.load(path)[1] == {"data": "abc"}
    assert "found no sha256" in caplog.text
    save_file(damaged(tensors, **change), path)
    for load in (Clustering.load, load_labels):
        with pytest.raises(DataError, match=message):
            load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [1, 1, 2]}, "not ascending"),
        ({"rows": [-1, 1, 2]}, "not ascending"),
        ({"labels": [0, -2, 1]}, "labels below -1"),
        ({"features": [[0.0], [float("nan")], [1.0]]}, "not finite"),
        ({"features": [[0], [1], [1]]}, "torch.int64"),
        ({"rows": [[1], [2], [3]]}, "do not belong together"),
    ],
)
def test_ranges_of_an_older_feature_file_are_checked(change, message, tmp_path):
    path = tmp_path / "old.safetensors"
    tensors = damaged({}, features=[[0.0], [1.0], [2.0]], rows=[0, 1, 2], labels=[0, -1, 0])
    save_file(tensors, path)
    assert FeatureFile.load(path).rows.tolist() == [0, 1, 2]
    save_file(damaged(tensors, **change), path)
    with pytest.raises(DataError, match=message):
        FeatureFile.load(path)


def header(described, size=0):
    text = json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


BOMBS = {
    "huge header": struct.pack("<Q", 1 << 62),
    "header of 50 MB": struct.pack("<Q", 50 << 20) + b"{" + b" " * 100,
    "many tensors": header({str(n): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)}),
    "terabytes": header({"labels": {"dtype": "I64", "shape": [1 << 40], "data_offsets": [0, 1 << 43]}}),
    "overflow": header({"labels": {"dtype": "I64", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}}, 8),
    "overlap": header(
        {name: {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]} for name in ("labels", "sizes")}, 8
    ),
    "foreign dtype": header({"labels": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, 1),
    "nested": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "no table": header([1, 2]),
    "metadata of numbers": header({"__metadata__": {"data": 3}}),
    "empty": b"",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_one_line(bomb, tmp_path):
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(BOMBS[bomb])
    for load in (Clustering.load, FeatureFile.load, load_labels):
        with pytest.raises(DataError, match=r"bomb\.safetensors") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(DataError, match="no such file"):
        Clustering.load(tmp_path / "pipe.safetensors")


@pytest.mark.parametrize("keep", [0, 3, 0.3, 0.9, 0.999])
def test_a_truncated_list_is_one_line(listed, keep):
    content = listed.read_bytes()
    listed.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(DataError, match="not a whole parquet file") as caught:
        read_columns(listed)
    assert "\n" not in str(caught.value)


def test_lists_of_other_values_are_one_line(tmp_path):
    path = tmp_path / "list.parquet"
    for columns, message in [
        ({"sample_id": ["a"], "cluster": [1]}, "column 'sample_id' of string"),
        ({"sample_id": [1, None], "cluster": [1, 2]}, "without a value in some rows of sample_id"),
        ({"sample_id": [1.5], "cluster": [1]}, "not a whole parquet file"),
        ({"sample_id": np.array([1 << 63], dtype=np.uint64), "cluster": [1]}, "not a whole parquet file"),
        ({"sample_id": list(range(9)), "cluster": [1] * 9}, "9 rows; expected 8 at most"),
    ]:
        pq.write_table(pa.table(columns), path)
        with pytest.raises(DataError, match=message):
            read_columns(path)
    table = pa.table({"sample_id": [1], "cluster": [1]})
    for metadata in ({"sha256": "no json"}, {"sha256": "[1]"}, {"sha256": "{}"}, {"data": b"\xff\xfe"}):
        pq.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(DataError):
            read_columns(path)


def test_a_list_without_a_sha256_is_read_with_a_line(tmp_path, caplog):
    pq.write_table(pa.table({"sample_id": [1], "cluster": [1]}), tmp_path / "list.parquet")
    assert read_columns(tmp_path / "list.parquet") == ([[1], [1]], None)
    assert "found no sha256" in caplog.text


def test_another_file_or_a_folder_names_the_file_to_give(tmp_path):
    (tmp_path / "clusters.safetensors").write_bytes(b"x")
    (tmp_path / "clusters.parquet").write_bytes(b"PAR1" * 20)
    for load in (Clustering.load, FeatureFile.load):
        for path in (tmp_path, tmp_path / "clusters.parquet"):
            with pytest.raises(DataError, match=rf"give {tmp_path}/clusters\.safetensors$"):
                load(path)
