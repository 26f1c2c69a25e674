"""RandomPartition: equal parts by seed and position, and means, distances and rejections as those of KMeans."""

import pytest
import torch
from torch.nn import functional as F

from ssl_lightning.clustering import KMeans, RandomPartition, normalized_mutual_info
from tests.clustering.test_kmeans import METRICS, distances_in_float64, mixture


@pytest.mark.parametrize(("rows", "k"), [(1000, 7), (1000, 100), (13, 13), (12, 1)])
def test_every_row_is_in_one_of_k_parts_and_sizes_differ_by_one_at_most(rows, k):
    found = RandomPartition()(mixture(rows), k)
    assert found.sizes.tolist() == found.labels.bincount(minlength=k).tolist()
    assert sorted(set(found.sizes.tolist())) == sorted({rows // k, -(-rows // k)})
    assert int(found.sizes.sum()) == rows


def test_parts_are_those_of_the_seed_whatever_the_features_are():
    first, again, other = (RandomPartition()(mixture(2000), 5, seed).labels for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(first, RandomPartition(metric="cosine")(torch.randn(2000, 3), 5, 3).labels)
    assert normalized_mutual_info(first, other) < 0.01
    # neither rows in their order nor the clusters of the features
    assert normalized_mutual_info(first, torch.arange(2000) % 5) < 0.01
    assert normalized_mutual_info(first, KMeans()(mixture(2000), 5).labels) < 0.01


@METRICS
def test_centroids_are_means_of_the_parts_and_distances_are_to_the_own_one(metric):
    features = mixture(200)
    found = RandomPartition(metric)(features, 6)
    rows = F.normalize(features, dim=1) if metric == "cosine" else features
    means = torch.stack([rows[found.labels == part].mean(0) for part in range(6)])
    assert torch.allclose(found.centroids, F.normalize(means, dim=1) if metric == "cosine" else means, atol=1e-6)
    own = distances_in_float64(rows, found.centroids, metric).gather(1, found.labels[:, None]).squeeze(1)
    assert torch.allclose(found.distances.double(), own, atol=1e-5)
    assert found.objective == pytest.approx([float(own.sum())], rel=1e-6)
    assert found.objective[-1] > KMeans(metric)(features, 6).objective[-1]


@pytest.mark.parametrize(
    ("features", "k"), [(torch.zeros(5, 2), 6), (torch.zeros(5, 2), 0), (torch.tensor([[0.0], [torch.nan]]), 2)]
)
def test_what_cannot_be_clustered_is_rejected_in_the_words_of_kmeans(features, k):
    words = []
    for clusterer in (KMeans(), RandomPartition()):
        with pytest.raises(ValueError, match="found") as caught:
            clusterer(features, k)
        words.append(str(caught.value))
    assert words[0] == words[1]
