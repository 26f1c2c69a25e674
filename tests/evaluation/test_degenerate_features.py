"""Every consumer of features has a defined result for constant, duplicated, huge, tiny and one-column features."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_lightning.clustering import FaissKMeans, KMeans, PCAWhitening, RandomPartition, UnitRows
from ssl_lightning.clustering.rows import unit_rows
from ssl_lightning.evaluation import (
    KNN,
    ClusterAgreement,
    FewShot,
    LabelledFeatures,
    LinearProbe,
    LowShot,
    feature_std,
    participation_ratio,
    rank_me,
)

ROWS = 60
LABELS = torch.arange(ROWS) % 3


def normal(rows=ROWS, width=8, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def classes(width=8):
    """Features in which the three classes are far apart."""
    return normal(width=width) * 0.1 + torch.eye(width)[LABELS % width]


FEATURES = {
    "constant": torch.full((ROWS, 8), 0.1),
    "zeros": torch.zeros(ROWS, 8),
    "constant and rounding": 0.3 + 1e-7 * normal(),
    "two levels, one rare": torch.where(normal(width=1728) > 3.0, -1.9216, -1.9373),
    "duplicated rows": normal(5).repeat(ROWS // 5, 1),
    "duplicated columns": normal(width=2).repeat(1, 4),
    "dead units": torch.relu(normal() - 4),
    "one direction": normal(width=1) @ normal(1),
    "one column": classes(1),
    "one constant column": torch.ones(ROWS, 1),
    "huge": 1e30 * classes(),
    "largest": torch.finfo(torch.float32).max * torch.sign(normal()),
    "tiny": 1e-30 * classes(),
    "subnormal": 1e-42 * classes(),
    "mixed": classes() * torch.logspace(-30, 30, 8),
    "large offset": 1e6 + classes(),
}
PROBES = {
    "ridge": LinearProbe(classifier="ridge"),
    "logistic": LinearProbe(classifier="logistic"),
    "knn": KNN(k=5),
    "knn, low temperature": KNN(k=5, temperature=1e-3),
    "low-shot": LowShot(),
    "few-shot": FewShot(ways=3, shots=(1, 5), episodes=20),
    "few-shot, logistic": FewShot(ways=3, shots=(1,), episodes=20, classifier="logistic"),
    "clusters": ClusterAgreement(),
}
CLUSTERERS = {
    "l2": KMeans(),
    "cosine": KMeans(metric="cosine"),
    "k-means++": KMeans(init="k-means++"),
    "keep": KMeans(empty="keep"),
    "faiss": FaissKMeans(),
    "faiss, cosine": FaissKMeans(metric="cosine"),
    "random": RandomPartition(),
}
each_kind = pytest.mark.parametrize("kind", FEATURES)


@each_kind
@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_returns_fractions(kind, probe):
    split = LabelledFeatures(FEATURES[kind], LABELS, 3)
    for name, value in PROBES[probe](split, split).items():
        assert 0 <= value <= 1, name


@each_kind
@pytest.mark.parametrize("clusterer", CLUSTERERS)
def test_every_clusterer_labels_every_row(kind, clusterer):
    found = CLUSTERERS[clusterer](FEATURES[kind], 4, seed=1)
    assert found.labels.shape == (ROWS,)
    assert found.sizes.sum() == ROWS
    assert torch.equal(found.labels.bincount(minlength=4), found.sizes)
    for values in (found.distances, found.centroids, torch.tensor(found.objective, dtype=torch.float64)):
        assert torch.isfinite(values).all()


@each_kind
def test_transforms_and_measures_are_finite(kind):
    features = FEATURES[kind]
    for transform in (PCAWhitening(1), UnitRows()):
        rows = transform(features)
        assert torch.isfinite(rows).all()
        assert (rows.norm(dim=1) < 1 + 1e-5).all()
    assert 0 <= rank_me(features) <= min(features.shape) + 1e-6
    assert 0 <= feature_std(features) <= 1.5
    assert 0 <= participation_ratio(features) <= min(features.shape) + 1e-3


@pytest.mark.parametrize("width", [1, 6])
def test_a_single_row_has_a_result(width):
    row = normal(1, width)
    assert rank_me(row) == pytest.approx(1.0)
    assert feature_std(row) == participation_ratio(row) == 0.0
    assert torch.equal(PCAWhitening(1)(row), torch.zeros(1, 1))
    for clusterer in CLUSTERERS.values():
        assert clusterer(row, 1).labels.tolist() == [0]
    split = LabelledFeatures(row, torch.tensor([0]), 1)
    assert KNN()(split, split)["knn/top1"] == 1.0
    assert math.isnan(LinearProbe()(split, split)["linear/top1"])


@settings(deadline=None, max_examples=30)
@given(st.integers(-40, 36), st.sampled_from(list(PROBES)))
def test_no_probe_depends_on_the_scale_of_the_features(exponent, probe):
    """A power of two changes no digit of a feature that stays within float32."""
    features = torch.round(classes() * 64) / 64
    plain, scaled = (LabelledFeatures(x, LABELS, 3) for x in (features, features * 2.0 ** (3 * exponent)))
    assert PROBES[probe](scaled, scaled) == PROBES[probe](plain, plain)


@settings(deadline=None, max_examples=30)
@given(st.integers(-40, 36))
def test_clusters_do_not_depend_on_the_scale_of_the_features(exponent):
    features, scale = torch.round(classes() * 64) / 64, 2.0 ** (3 * exponent)
    for clusterer in (KMeans(init="k-means++"), KMeans(metric="cosine"), RandomPartition()):
        plain, scaled = clusterer(features, 3, seed=2), clusterer(features * scale, 3, seed=2)
        assert torch.equal(plain.labels, scaled.labels)
        if getattr(clusterer, "metric", "l2") == "l2":
            assert torch.allclose(scaled.centroids / scale, plain.centroids, rtol=1e-5)
            assert scaled.objective[-1] == pytest.approx(plain.objective[-1] * scale**2, rel=1e-5)
    assert torch.allclose(PCAWhitening(3)(features * scale), PCAWhitening(3)(features), atol=1e-5)


def test_constant_features_give_the_documented_results():
    split = LabelledFeatures(torch.full((ROWS, 8), 0.1), torch.tensor([0] * 30 + [1] * 20 + [2] * 10), 3)
    assert LinearProbe(classifier="ridge")(split, split)["ridge/top1"] == 0.5  # the most frequent class
    assert LinearProbe(classifier="logistic")(split, split)["linear/top1"] == 0.5
    assert KNN()(split, split)["knn/top1"] in (0.5, 1 / 3, 1 / 6)  # one class
    assert FewShot(ways=3, shots=(1,), episodes=20)(split, split)["fewshot/3way1shot"] == pytest.approx(1 / 3)
    assert rank_me(split.features) == pytest.approx(1.0)
    assert len(KMeans()(split.features, 4).labels.unique()) == 1


def test_rows_of_any_length_become_unit_rows():
    rows = torch.tensor([[3.0, 4.0], [3e37, 4e37], [3e-44, 4e-44], [0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.0, 0.0]])
    assert torch.allclose(unit_rows(rows), expected, atol=0.03)  # 3e-44 has two significant bits
    plain = normal()
    assert torch.equal(unit_rows(plain), torch.nn.functional.normalize(plain, dim=1))
