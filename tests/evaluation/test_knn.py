"""k-NN against a slow loop in float64, scikit-learn, and hand-worked cases."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ssl_lightning.evaluation import KNN, LabelledFeatures
from ssl_lightning.evaluation import knn as module


def random_split(rows, width=16, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=generator)
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    return LabelledFeatures(centers[labels] + 1.5 * torch.randn(rows, width, generator=generator), labels, classes)


def slow_votes(train, queries, k, temperature):
    """One image and one neighbor at a time."""
    reference = torch.nn.functional.normalize(train.features.double(), dim=1)
    votes = torch.zeros(len(queries), train.num_classes, dtype=torch.float64)
    for row, query in enumerate(torch.nn.functional.normalize(queries.double(), dim=1)):
        similarity = reference @ query
        for neighbor in similarity.argsort(descending=True)[:k].tolist():
            votes[row, train.labels[neighbor]] += math.exp(float(similarity[neighbor]) / temperature)
    return votes


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_it_votes_as_a_slow_loop_does(k):
    train, test = random_split(300), random_split(80, seed=1)
    votes = slow_votes(train, test.features, k, 0.1)
    top = votes.topk(2, dim=1).values
    clear = (top[:, 0] - top[:, 1]) > 0.02 * top[:, 0]  # oneDNN may round factors to bfloat16 where the CPU has units
    predicted = KNN(k=k).predict(train, test.features)
    assert clear.float().mean() > 0.9
    assert torch.equal(predicted[clear], votes.argmax(1)[clear])


def test_it_agrees_with_scikit_learn():
    train, test = random_split(400), random_split(200, seed=1)
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.1))
    theirs.fit(train.features.numpy(), train.labels.numpy())
    expected = theirs.score(test.features.numpy(), test.labels.numpy())
    assert KNN()(train, test)["knn/top1"] == pytest.approx(expected, abs=0.011)


def test_every_image_is_its_own_nearest_neighbor():
    train = random_split(500)
    assert KNN(k=1)(train, train) == {"knn1/top1": 1.0}


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("rows", [8 * 130, 8 * 130 + 5])
@pytest.mark.parametrize("units", [True, False])
def test_two_rounds_find_what_one_long_search_finds(monkeypatch, k, rows, units):
    monkeypatch.setattr(module, "has_bfloat16_units", lambda: units)
    monkeypatch.setattr(module, "WORTH_ROUNDING", 0)
    generator = torch.Generator().manual_seed(0)
    reference, queries = torch.randn(rows, 12, generator=generator), torch.randn(33, 12, generator=generator)
    search = module._search(reference, k)
    assert not (search.search if units else search).in_one_round
    products, found = search(queries)
    expected = (queries @ reference.T).topk(k, dim=1).values
    assert torch.allclose(products.sort(dim=1, descending=True).values, expected, atol=0.1 if units else 0.05)
    exact = (queries @ reference.T).gather(1, found)
    assert torch.allclose(exact.sort(dim=1, descending=True).values, expected, atol=0.1 if units else 0.05)
    assert all(len(set(row)) == k for row in found.tolist())


@pytest.mark.parametrize(("k", "same"), [(1, 0.99), (20, 0.99), (60, 0.95)])
def test_rounding_keeps_the_order_of_cosines_that_are_all_alike(monkeypatch, k, same):
    monkeypatch.setattr(module, "has_bfloat16_units", lambda: True)
    monkeypatch.setattr(module, "WORTH_ROUNDING", 0)
    generator = torch.Generator().manual_seed(0)
    rows = 1.0 + 0.1 * torch.randn(2000, 64, generator=generator)  # cosines of 0.985 to 0.995: three steps of bfloat16
    unit = torch.nn.functional.normalize(rows, dim=1)
    reference, queries = unit[:1600], unit[1600:]
    products, found = module._search(reference, k)(queries)
    expected, nearest = (queries @ reference.T).topk(k, dim=1)
    assert torch.allclose(products.sort(dim=1, descending=True).values, expected, atol=2e-4)
    shared = (found.unsqueeze(2) == nearest.unsqueeze(1)).any(2).double().mean()
    assert shared > same


@pytest.mark.parametrize("k", [1, 10])
def test_rounding_reports_neighbors_in_tight_groups_apart(monkeypatch, k):
    monkeypatch.setattr(module, "has_bfloat16_units", lambda: True)
    generator = torch.Generator().manual_seed(0)
    centers = torch.nn.functional.normalize(torch.randn(300, 64, generator=generator), dim=1)
    halves = centers.repeat_interleave(2, 0) + 0.004 * torch.randn(600, 64, generator=generator)
    rows = halves.repeat_interleave(10, 0) + 0.0005 * torch.randn(6000, 64, generator=generator)
    labels = torch.arange(2).repeat_interleave(10).repeat(300)
    train, queries = LabelledFeatures(rows, labels, 2), halves + 0.0005 * torch.randn(600, 64, generator=generator)
    assert (KNN(k=k).predict(train, queries) == torch.arange(600) % 2).float().mean() > 0.99


def test_blocks_of_queries_change_nothing(monkeypatch):
    train, test = random_split(1200), random_split(300, seed=1)
    whole = KNN().predict(train, test.features)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 1200 * 7)
    assert (KNN().predict(train, test.features) == whole).float().mean() > 0.99


def test_names_follow_k():
    train = random_split(30)
    assert set(KNN()(train, train)) == {"knn/top1"}
    assert set(KNN(k=200)(train, train)) == {"knn200/top1"}


def test_half_precision_features_are_evaluated_in_float32():
    train, test = random_split(200), random_split(100, seed=1)
    half = [LabelledFeatures(split.features.half(), split.labels, 5) for split in (train, test)]
    assert KNN()(*half)["knn/top1"] == pytest.approx(KNN()(train, test)["knn/top1"], abs=0.03)


def test_an_empty_split_is_undefined():
    train = random_split(30)
    nothing = LabelledFeatures(torch.zeros(0, 16), torch.zeros(0, dtype=torch.int64), 5)
    assert math.isnan(KNN()(train, nothing)["knn/top1"])
    assert math.isnan(KNN()(nothing, train)["knn/top1"])


@pytest.mark.parametrize("options", [{"k": 0}, {"temperature": 0.0}])
def test_settings_that_make_no_sense_are_rejected(options):
    with pytest.raises(ValueError, match="expected positive numbers"):
        KNN(**options)
