"""Cluster files: whole or absent, and rejected when they are not what they say."""

import pytest
import torch
from safetensors.torch import save_file

from ssl_lightning import files
from ssl_lightning.clustering import Clustering, KMeans
from tests.clustering.test_kmeans import mixture


@pytest.fixture
def clustering():
    return KMeans()(mixture(300), 7)


def test_what_is_written_is_read(clustering, tmp_path):
    clustering.save(tmp_path / "clusters.safetensors", {"data": "abc", "checkpoint": ""})
    again, metadata = Clustering.load(tmp_path / "clusters.safetensors")
    assert metadata == {"data": "abc", "checkpoint": ""}
    for name in ("labels", "distances", "centroids", "sizes"):
        assert torch.equal(getattr(again, name), getattr(clustering, name))
    assert again.objective == clustering.objective


@pytest.mark.parametrize("keep", [0, 4, 20, 0.5, 0.99])
def test_a_truncated_file_is_one_line(clustering, tmp_path, keep):
    path = tmp_path / "clusters.safetensors"
    clustering.save(path, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(ValueError, match="not a whole cluster file") as caught:
        Clustering.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_another_kind_of_file_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="not a whole cluster file"):
        Clustering.load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("clusters: many")
    with pytest.raises(ValueError, match="make it again"):
        Clustering.load(tmp_path / "text.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="make it again"):
        Clustering.load(tmp_path / "weights.safetensors")


def test_tensors_that_do_not_belong_together_are_rejected(tmp_path):
    path = tmp_path / "odd.safetensors"
    zeros = torch.zeros
    tensors = {"labels": zeros(4), "distances": zeros(3), "centroids": zeros(2, 2), "sizes": zeros(2)}
    save_file(tensors | {"objective": zeros(1)}, path)
    with pytest.raises(ValueError, match="do not belong together"):
        Clustering.load(path)


def test_a_write_that_fails_leaves_the_old_file(clustering, tmp_path, monkeypatch):
    path = tmp_path / "clusters.safetensors"
    clustering.save(path, {"version": "old"})

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        clustering.save(path, {"version": "new"})
    assert Clustering.load(path)[1] == {"version": "old"}


def test_equal_clusterings_are_equal_bytes_and_stand_as_the_format_wants_them(clustering, tmp_path):
    """Or a stage made again would look changed to the next one."""
    metadata = {name: f"value of {name}" for name in ("data", "checkpoint", "data_config", "größe")}
    contents = []
    for turn in range(8):
        path = tmp_path / f"{turn}.safetensors"
        clustering.save(path, metadata if turn % 2 else dict(reversed(metadata.items())))
        contents.append(path.read_bytes())
    assert len(set(contents)) == 1
    assert (8 + int.from_bytes(contents[0][:8], "little")) % 8 == 0
    assert Clustering.load(path)[1] == metadata
