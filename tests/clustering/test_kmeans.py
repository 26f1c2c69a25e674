"""Both clusterers against scikit-learn, faiss and a slow loop in float64; their invariants; their edges."""

import dataclasses
import itertools

import faiss
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as ScikitKMeans
from torch.nn import functional as F

from ssl_lightning.clustering import FaissKMeans, KMeans, normalized_mutual_info
from ssl_lightning.clustering.kmeans import sums_by_label
from ssl_lightning.clustering.rows import ShardedRows
from ssl_lightning.clustering.starts import random_rows

BOTH = pytest.mark.parametrize("clusterer", [KMeans, FaissKMeans])
METRICS = pytest.mark.parametrize("metric", ["l2", "cosine"])


def mixture(rows=2000, width=16, parts=12, spread=0.7, seed=0):
    """Overlapping clusters, the first ones larger."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(torch.arange(1, parts + 1) ** -1.0, rows, replacement=True, generator=generator)
    centers = torch.randn(parts, width, generator=generator)
    return centers[which] + spread * torch.randn(rows, width, generator=generator)


def distances_in_float64(features, centroids, metric):
    features, centroids = features.double(), centroids.double()
    if metric == "l2":
        return torch.cdist(features, centroids, compute_mode="donot_use_mm_for_euclid_dist").square()
    return 1 - F.normalize(features, dim=1) @ centroids.T


def check_contract(features, k, found, metric):
    """What every clustering must be, whatever the features."""
    distances = distances_in_float64(features, found.centroids, metric)
    own = distances.gather(1, found.labels.unsqueeze(1)).squeeze(1)
    assert found.centroids.shape == (k, features.shape[1])
    assert found.centroids.isfinite().all()
    assert torch.equal(found.sizes, torch.bincount(found.labels, minlength=k))
    slack = 1e-5 * (features.double().square().sum(1) + found.centroids.double().square().sum(1).max())
    assert (own <= distances.min(1).values + slack).all(), "a label is not that of the nearest centroid"
    assert ((found.distances - own).abs() <= slack + 1e-6).all()
    assert found.objective[-1] == pytest.approx(float(found.distances.double().sum()), rel=1e-6, abs=1e-6)
    if metric == "cosine":
        assert torch.allclose(found.centroids.norm(dim=1), torch.ones(k), atol=1e-5)


def lloyd(features, centroids, iterations):
    """One row and one cluster at a time, in float64; empty clusters stay where they are."""
    rows, centroids = features.double().numpy(), centroids.double().numpy().copy()
    for _ in range(iterations):
        labels = np.array([int(((row - centroids) ** 2).sum(1).argmin()) for row in rows])
        for cluster in range(len(centroids)):
            if (labels == cluster).any():
                centroids[cluster] = rows[labels == cluster].mean(0)
    return centroids


def test_it_is_a_slow_loop_made_fast():
    features = mixture(300, 6, 5)
    first = features[random_rows(ShardedRows(features, None), 8, 3)]
    found = KMeans(iterations=1, empty="keep")(features, 8, seed=3)
    assert np.allclose(found.centroids.numpy(), lloyd(features, first, 1), atol=2e-2)
    many = KMeans(iterations=100, empty="keep")(features, 8, seed=3)
    assert np.allclose(many.centroids.numpy(), lloyd(features, first, 100), atol=5e-2)


@pytest.mark.parametrize("k", [5, 40])
def test_scikit_learn_finds_no_better_clusters_from_the_same_start(k):
    features = mixture(4000)
    first = features[random_rows(ShardedRows(features, None), k, 0)].numpy()
    theirs = ScikitKMeans(k, init=first, n_init=1, max_iter=100, tol=0, algorithm="lloyd").fit(features.numpy())
    ours = KMeans(iterations=100)(features, k)
    assert ours.objective[-1] == pytest.approx(theirs.inertia_, rel=0.01)
    exact = KMeans(iterations=1)(torch.from_numpy(theirs.cluster_centers_[theirs.labels_]), k)
    assert len(exact.labels) == 4000
    assert normalized_mutual_info(ours.labels, torch.from_numpy(theirs.labels_).long()) > 0.8


def test_faiss_on_all_points_finds_no_better_clusters_from_the_same_start():
    features = mixture(6000)
    first = features[random_rows(ShardedRows(features, None), 50, 0)].numpy()
    theirs = faiss.Kmeans(16, 50, niter=20, min_points_per_centroid=1, max_points_per_centroid=6000)
    theirs.train(features.numpy(), init_centroids=first)
    squared, _ = theirs.index.search(features.numpy(), 1)
    for clusterer in (KMeans(), FaissKMeans()):
        assert clusterer(features, 50).objective[-1] == pytest.approx(float(squared.sum()), rel=5e-3)


@BOTH
@METRICS
@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_the_contract_holds_on_a_mixture(clusterer, metric, init):
    features = mixture()
    check_contract(features, 30, clusterer(metric=metric, init=init)(features, 30, seed=1), metric)


@BOTH
@METRICS
def test_the_objective_falls(clusterer, metric):
    objective = clusterer(metric=metric)(mixture(), 12).objective
    assert len(objective) > 3
    # iterations may round factors to bfloat16 where the CPU has units for that
    assert all(after <= before * 1.001 for before, after in itertools.pairwise(objective))
    assert objective[-1] < 0.9 * objective[0]


@BOTH
def test_the_same_seed_gives_the_same_labels_and_another_seed_another_start(clusterer):
    features = mixture()
    first, again, other = (clusterer()(features, 20, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.centroids, other.centroids)


@BOTH
def test_separated_blobs_are_found(clusterer):
    truth = torch.arange(6).repeat(50)
    features = 50 * torch.eye(6)[truth] + torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    found = clusterer(init="k-means++")(features, 6)
    assert normalized_mutual_info(found.labels, truth) == pytest.approx(1.0)


def test_plus_plus_starts_better_than_random_rows_on_a_long_tail():
    features = mixture(3000, 8, 60, spread=0.05)
    starts = {
        init: np.mean([KMeans(init=init, iterations=1)(features, 60, seed=seed).objective[0] for seed in range(5)])
        for init in ("random", "k-means++")
    }
    assert starts["k-means++"] < 0.3 * starts["random"]


@BOTH
def test_one_cluster_is_the_mean_and_as_many_as_rows_cost_nothing(clusterer):
    features = mixture(50)
    assert torch.allclose(clusterer()(features, 1).centroids[0], features.mean(0), atol=1e-4)
    every = clusterer()(features, 50)
    assert every.objective[-1] == pytest.approx(0, abs=1e-6)
    assert every.sizes.tolist() == [1] * 50


@BOTH
def test_cosine_labels_do_not_depend_on_the_length_of_rows(clusterer):
    features = mixture(500)
    lengths = torch.rand(500, 1, generator=torch.Generator().manual_seed(1)) * 100 + 0.01
    plain, scaled = (clusterer(metric="cosine")(rows, 10) for rows in (features, features * lengths))
    assert normalized_mutual_info(plain.labels, scaled.labels) > 0.98


@BOTH
def test_no_row_is_left_out_unless_requested(clusterer):
    """faiss would train on 256 rows a centroid and say nothing: here a far away row outside of any sample must pull."""
    features = torch.zeros(4000, 2)
    features[:, 0] = torch.arange(4000) % 2
    features[-1, 1] = 4000.0
    assert float(clusterer()(features, 1).centroids[0, 1]) == pytest.approx(1.0)
    sampled = {float(clusterer(max_points=20)(features, 1, seed=seed).centroids[0, 1]) for seed in range(5)}
    assert sampled == {0.0}
    assert len(clusterer(max_points=20)(features, 2).labels) == 4000


def test_splitting_fills_empty_clusters_and_keeping_leaves_them():
    features = torch.cat([torch.zeros(500, 2), torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) + 9])
    split, keep = (KMeans(empty=empty, iterations=20)(features, 50, seed=2) for empty in ("split", "keep"))
    assert split.repairs > 0
    assert keep.repairs == 0
    assert int((keep.sizes == 0).sum()) > int((split.sizes == 0).sum())


def test_faiss_does_not_keep():
    with pytest.raises(ValueError, match="use KMeans"):
        FaissKMeans(empty="keep")


EDGES = {
    "one row": (torch.ones(1, 3), 1),
    "two rows": (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 2),
    "k rows": (mixture(10), 10),
    "39 k rows": (mixture(390), 10),
    "identical rows": (torch.full((60, 4), 2.5), 5),
    "all zeros": (torch.zeros(40, 4), 5),
    "fewer distinct rows than k": (mixture(3).repeat(20, 1), 8),
    "one feature": (torch.linspace(-1, 1, 80).unsqueeze(1), 4),
    "large values": (mixture(200) * 1e6, 7),
    "tiny values": (mixture(200) * 1e-6, 7),
    "float64": (mixture(200).double(), 7),
    "float16": (mixture(200).half(), 7),
    "not contiguous": (mixture(200, 32)[:, ::2], 7),
}


@BOTH
@METRICS
@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_edges_give_a_whole_clustering(clusterer, metric, name, init):
    features, k = EDGES[name]
    found = clusterer(metric=metric, init=init)(features, k)
    assert int(found.labels.min()) >= 0
    assert int(found.labels.max()) < k
    assert torch.equal(found.sizes, torch.bincount(found.labels, minlength=k))
    assert found.centroids.isfinite().all()
    assert found.distances.isfinite().all()
    assert len(found.labels) == len(features)


@METRICS
@pytest.mark.parametrize("empty", ["split", "keep"])
def test_fewer_distinct_rows_than_clusters_leave_clusters_empty_and_say_so(metric, empty):
    features = mixture(3).repeat(20, 1)
    found = KMeans(metric=metric, empty=empty, init="k-means++")(features, 8)
    assert int((found.sizes > 0).sum()) >= 3
    assert found.objective[-1] == pytest.approx(0, abs=1e-3)


@BOTH
@pytest.mark.parametrize(
    ("features", "k", "words"),
    [
        (torch.zeros(5, 2), 6, "found k=6 clusters for 5 rows"),
        (torch.zeros(5, 2), 0, "expected at least 1"),
        (torch.tensor([[0.0], [float("nan")], [1.0]]), 2, r"NaN or infinite features in 1 rows.*\[1\]"),
        (torch.tensor([[0.0], [1.0], [float("-inf")]]), 2, r"in 1 rows.*\[2\]"),
        (torch.tensor([[float("inf")], [1.0], [float("-inf")]]), 2, "in 2 rows"),
    ],
)
def test_what_cannot_be_clustered_is_one_line(clusterer, features, k, words):
    with pytest.raises(ValueError, match=words) as caught:
        clusterer()(features, k)
    assert "\n" not in str(caught.value)


@BOTH
@pytest.mark.parametrize("options", [{"iterations": 0}, {"max_points": 0}])
def test_settings_that_make_no_sense_are_rejected(clusterer, options):
    with pytest.raises(ValueError, match="expected at least 1"):
        clusterer(**options)


@BOTH
def test_it_leaves_the_features_and_the_global_generator_alone(clusterer):
    features = mixture(200)
    before, state = features.clone(), torch.get_rng_state()
    clusterer(metric="cosine", init="k-means++")(features, 5)
    assert torch.equal(features, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert dataclasses.is_dataclass(clusterer)


def test_rounded_products_stay_within_the_iterations():
    before = torch.backends.mkldnn.matmul.fp32_precision
    KMeans()(mixture(200), 5)
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize(("rows", "k"), [(0, 3), (1, 1), (500, 7), (500, 90), (300, (1 << 15) + 5)])
def test_sums_by_label_are_those_of_scattered_additions(rows, k):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, 6, generator=generator)
    labels = torch.randint(k - k // 3, (rows,), generator=generator)  # the last third has no rows
    expected = torch.zeros(k, 6, dtype=torch.float64).index_add_(0, labels, features.double())
    assert torch.allclose(sums_by_label(features, labels, k).double(), expected, atol=1e-5)
