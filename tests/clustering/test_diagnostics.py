"""Agreement of labellings and shape of a clustering, against scikit-learn and by hand."""

import math

import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from ssl_lightning.clustering import cluster_metrics, diagnostics, normalized_mutual_info
from ssl_lightning.clustering.diagnostics import adjusted_mutual_info, reassigned, size_metrics


def labels(rows, classes, seed):
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(10))
def test_mutual_information_is_that_of_scikit_learn(seed):
    a, b = labels(200, 3 + seed, seed), labels(200, 12 - seed, seed + 100)
    b[: 20 * seed] = a[: 20 * seed]
    assert normalized_mutual_info(a, b) == pytest.approx(
        normalized_mutual_info_score(a, b, average_method="geometric"), abs=1e-9
    )
    assert adjusted_mutual_info(a, b) == pytest.approx(
        adjusted_mutual_info_score(a, b, average_method="geometric"), abs=1e-9
    )


def test_many_clusters_are_compared_without_a_table_of_all_pairs(monkeypatch):
    """At K = 30,000 it would have 7 GB."""
    a, b = labels(60_000, 30_000, 0), labels(60_000, 30_000, 1)
    b[:30_000] = a[:30_000]
    monkeypatch.delattr(diagnostics, "_contingency")
    expected = normalized_mutual_info_score(a, b, average_method="geometric")
    assert normalized_mutual_info(a, b) == pytest.approx(expected, abs=1e-9)
    assert math.isnan(reassigned(a, b))


def test_names_do_not_matter_and_a_labelling_agrees_with_itself():
    a, b = labels(500, 7, 0), labels(500, 5, 1)
    renamed = torch.randperm(7, generator=torch.Generator().manual_seed(0))[a] * 11
    assert normalized_mutual_info(a, a) == pytest.approx(1.0)
    assert normalized_mutual_info(renamed, b) == pytest.approx(normalized_mutual_info(a, b))
    assert normalized_mutual_info(b, a) == pytest.approx(normalized_mutual_info(a, b))
    assert reassigned(a, renamed) == 0.0


def test_independent_labels_share_almost_nothing():
    assert normalized_mutual_info(labels(20_000, 5, 0), labels(20_000, 5, 1)) < 0.002


def test_a_single_cluster_knows_nothing_and_nothing_labelled_is_undefined():
    one = torch.zeros(10, dtype=torch.int64)
    assert normalized_mutual_info(one, labels(10, 3, 0)) == 0.0
    assert normalized_mutual_info(one, one) == 1.0
    assert math.isnan(normalized_mutual_info(one - 1, one))


def test_rows_without_a_label_are_left_out():
    a, b = torch.tensor([0, 0, 1, 1, -1, 2]), torch.tensor([5, 5, 6, 6, 5, -1])
    assert normalized_mutual_info(a, b) == pytest.approx(1.0)
    assert reassigned(a, b) == 0.0


def test_reassignment_counts_what_no_renaming_explains():
    before = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    after = torch.tensor([2, 2, 1, 0, 0, 0, 1, 1])
    assert reassigned(before, after) == pytest.approx(1 / 8)


def test_too_many_clusters_are_not_matched():
    many = torch.arange(2001)
    assert math.isnan(reassigned(many, many))


def test_sizes_by_hand():
    found = size_metrics(torch.tensor([4, 4, 0, 0]))
    assert found["empty"] == 2
    assert found["largest_share"] == 0.5
    assert found["entropy"] == pytest.approx(0.5)
    assert found["imbalance"] == pytest.approx(2.0)
    even = size_metrics(torch.tensor([5, 5, 5]))
    assert even == pytest.approx({"empty": 0.0, "largest_share": 1 / 3, "entropy": 1.0, "imbalance": 1.0})


def test_names_appear_with_what_they_need():
    sizes, found = torch.tensor([2, 2]), torch.tensor([0, 0, 1, 1])
    alone = {"empty", "largest_share", "entropy", "imbalance"}
    assert set(cluster_metrics(sizes, found)) == alone
    unlabelled = torch.full((4,), -1)
    assert set(cluster_metrics(sizes, found, found, unlabelled)) == alone | {"nmi_previous", "reassigned"}
    everything = cluster_metrics(sizes, found, found, torch.tensor([0, 0, 1, 1]))
    assert set(cluster_metrics(sizes, found, objective=[9.0, 6.0])) == alone | {"objective"}
    assert everything["nmi_labels"] == everything["ami_labels"] == everything["nmi_previous"] == pytest.approx(1.0)


def test_the_objective_is_the_last_one_a_clustered_row():
    labels = torch.tensor([0, 1, -1, 1])
    assert cluster_metrics(torch.tensor([1, 2]), labels, objective=[9.0, 6.0])["objective"] == 2.0
