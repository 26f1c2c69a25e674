"""Which clusterings a run keeps, and how their files are found."""

from itertools import pairwise

import pytest
import torch

from ssl_lightning.clustering import Clustering
from ssl_lightning.clustering.saved import cluster_file, cluster_files, clusters_of, is_kept, metadata_of, step_of
from ssl_lightning.errors import DataError


def kept_after(count, most):
    """What a run of that many clusterings keeps: each new one removes those that are no longer kept."""
    files = []
    for newest in range(count):
        files = [number for number in [*files, newest] if is_kept(number, newest, most)]
    return files


@pytest.mark.parametrize("most", [2, 5, 20])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 21, 40, 41, 200, 1000])
def test_of_many_clusterings_evenly_spaced_ones_the_first_and_the_newest_are_kept(count, most):
    files = kept_after(count, most)
    assert files[0] == 0
    assert files[-1] == count - 1
    assert min(count, most // 2) <= len(files) <= most + 1
    gaps = {after - before for before, after in pairwise(files[:-1])}
    assert len(gaps) <= 1
    if count <= most:
        assert files == list(range(count))


def test_a_run_that_is_resumed_keeps_what_an_uninterrupted_one_keeps():
    whole = kept_after(100, 20)
    for killed, resumed in ((30, 25), (41, 39), (90, 10)):
        files = [number for number in kept_after(killed, 20) if number < resumed]
        for newest in range(resumed, 100):
            files = [number for number in [*files, newest] if is_kept(number, newest, 20)]
        assert files == whole


def test_files_are_in_the_order_of_their_steps(tmp_path):
    (tmp_path / "clusters").mkdir()
    for step in (100, 20, 3):
        cluster_file(tmp_path, step).touch()
    for other in ("step-.safetensors", "step-5.parquet", "mine.safetensors", ".step-7.safetensors.tmp-1"):
        (tmp_path / "clusters" / other).touch()
    assert [step_of(path) for path in cluster_files(tmp_path)] == [3, 20, 100]
    assert metadata_of(cluster_file(tmp_path, 3)) == {}
    assert cluster_files(tmp_path / "nothing") == []
    with pytest.raises(ValueError, match="expected step-<n>"):
        step_of(tmp_path / "clusters" / "mine.safetensors")


def test_labels_without_features_are_read_back(tmp_path):
    labels = torch.tensor([0, 2, -1, 2])
    Clustering.without_features(labels, 4).save(tmp_path / "a.safetensors", {"source": "pseudo-labels"})
    found, metadata = Clustering.load(tmp_path / "a.safetensors")
    assert torch.equal(found.labels, labels)
    assert found.sizes.tolist() == [1, 0, 2, 0]
    assert found.distances.isnan().all()
    assert found.centroids.shape == (4, 0)
    assert metadata["source"] == "pseudo-labels"


def test_a_run_or_a_checkpoint_stands_for_its_newest_clusters(tmp_path):
    run = tmp_path / "run"
    for folder in ("clusters", "checkpoints"):
        (run / folder).mkdir(parents=True)
    for step in (9, 20, 100):
        cluster_file(run, step).touch()
    for step in (8, 30, 100):
        (run / "checkpoints" / f"step-{step}.ckpt").touch()
    (run / "checkpoints" / "last.ckpt").symlink_to("step-30.ckpt")
    assert clusters_of(run) == cluster_file(run, 100)
    assert clusters_of(str(run / "checkpoints" / "step-100.ckpt")) == cluster_file(run, 100)
    assert clusters_of(run / "checkpoints" / "last.ckpt") == cluster_file(run, 20)
    assert clusters_of(cluster_file(run, 9)) == cluster_file(run, 9)
    for nothing in (tmp_path, run / "checkpoints" / "step-8.ckpt"):
        with pytest.raises(DataError, match="found no clusters of"):
            clusters_of(nothing)
