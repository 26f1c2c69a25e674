"""Purity and distances to the means, against slow loops."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.cluster import contingency_matrix

from ssl_lightning.clustering.diagnostics import distances_to_means, purity


def test_purity_worked_by_hand():
    assigned = torch.tensor([0, 0, 0, 0, 2, 2, -1, 3, 1])
    labels = torch.tensor([5, 5, 1, 5, 0, 1, 0, -1, 9])
    found = purity(assigned, labels, 5)
    assert found.shape == (5,)
    assert found[:3].tolist() == [0.75, 1.0, 0.5]
    assert found[3:].isnan().all()  # only an unlabelled row, and no row


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 4)), max_size=40))
def test_purity_is_the_share_of_the_commonest_label(pairs):
    assigned, labels = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    for cluster, found in enumerate(purity(assigned, labels, 7).tolist()):
        own = Counter(label for of, label in pairs if of == cluster and label >= 0)
        if own:
            assert found == pytest.approx(max(own.values()) / sum(own.values()))
        else:
            assert found != found


def test_purity_weighted_by_size_is_that_of_the_contingency_table():
    generator = torch.Generator().manual_seed(0)
    assigned, labels = torch.randint(20, (500,), generator=generator), torch.randint(7, (500,), generator=generator)
    whole = contingency_matrix(labels, assigned).max(0).sum() / 500
    assert float((purity(assigned, labels, 20) * assigned.bincount(minlength=20)).sum() / 500) == pytest.approx(whole)


def test_purity_of_one_big_cluster_is_the_share_of_the_commonest_label():
    labels = torch.tensor([3, 3, 3, 1, 0, -1])
    assert purity(torch.zeros_like(labels), labels, 1).tolist() == pytest.approx([0.6])


def test_many_clusters_and_large_labels_need_no_table_of_both():
    assigned = torch.arange(1000) * 1000
    found = purity(assigned, torch.arange(1000) + 10**9, 10**6)
    assert int((found == 1).sum()) == 1000
    assert int(found.isnan().sum()) == 10**6 - 1000


def test_distances_are_to_the_mean_of_the_own_cluster():
    generator = torch.Generator().manual_seed(0)
    features, assigned = torch.randn(200, 5, generator=generator), torch.randint(-1, 9, (200,), generator=generator)
    found = distances_to_means(features, assigned, 12)
    for row in range(200):
        if assigned[row] < 0:
            assert found[row].isnan()
        else:
            mean = features[assigned == assigned[row]].double().mean(0)
            assert float(found[row]) == pytest.approx(float((features[row] - mean).norm()), abs=1e-5)


def test_a_cluster_of_one_is_at_distance_zero():
    assert distances_to_means(torch.tensor([[1.0, 2.0]]), torch.tensor([3]), 5).tolist() == [0.0]
