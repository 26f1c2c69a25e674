"""Clusters over time against a slow reference, hand-worked cases, and random clusterings."""

import itertools
import logging

import pytest
import torch

from ssl_lightning.clustering import ClusterHistory, diagnostics, history


def random_labels(count, k, seed, missing=0.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (count,), generator=generator)
    labels[torch.rand(count, generator=generator) < missing] = -1
    return labels


def slow_best_overlap(before, after, k):
    """The most images that stay, over all one-to-one matchings of ids."""
    best = 0
    for order in itertools.permutations(range(k)):
        stay = sum(1 for a, b in zip(before.tolist(), after.tolist(), strict=True) if a >= 0 and b == order[a])
        best = max(best, stay)
    return best


@pytest.mark.parametrize("seed", range(8))
def test_churn_is_that_of_the_best_of_all_matchings(seed):
    before, after = (random_labels(60, 5, seed + shift, missing=0.1) for shift in (0, 100))
    (found,) = ClusterHistory([before, after], 5).transitions
    both = int(((before >= 0) & (after >= 0)).sum())
    assert found.churn == pytest.approx(1 - slow_best_overlap(before, after, 5) / both)
    if not (before < 0).any() | (after < 0).any():
        assert found.churn == pytest.approx(diagnostics.reassigned(before, after))


def overlap(a, b):
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("seed", range(8))
def test_matched_clusters_births_and_deaths_follow_from_sets_of_images(seed):
    before = random_labels(200, 8, seed)
    after = torch.where(
        torch.rand(200, generator=torch.Generator().manual_seed(seed)) < 0.6, (before + 3) % 8, 7 - before
    )
    (found,) = ClusterHistory([before, after], 8).transitions
    sets = [[set((labels == k).nonzero().flatten().tolist()) for k in range(8)] for labels in (before, after)]
    for k, successor in enumerate(found.successor.tolist()):
        if successor != -1:
            assert overlap(sets[0][k], sets[1][successor]) > history.LEAST_OVERLAP
            assert int(found.predecessor[successor]) == k
    assert found.deaths == [k for k in range(8) if sets[0][k] and int(found.successor[k]) == -1]
    assert found.births == [k for k in range(8) if sets[1][k] and int(found.predecessor[k]) == -1]
    assert len([k for k in found.successor.tolist() if k != -1]) >= 6


def test_other_ids_of_the_same_clusters_are_no_change():
    labels = random_labels(500, 20, 0)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    followed = ClusterHistory([labels, order[labels], order[order[labels]]], 20)
    assert [each.churn for each in followed.transitions] == [0.0, 0.0]
    assert all(each.births == [] == each.deaths for each in followed.transitions)
    for k in range(20):
        assert followed.follow(k, at=0) == [k, int(order[k]), int(order[order[k]])]
        assert followed.follow(int(order[k]), at=1) == followed.follow(k, at=0)
        assert followed.follow(int(order[order[k]])) == followed.follow(k, at=0)


def test_a_cluster_that_splits_keeps_its_larger_part_and_the_other_is_born():
    before = torch.tensor([0] * 10 + [1] * 10)
    after = torch.tensor([0] * 6 + [2] * 4 + [1] * 10)
    followed = ClusterHistory([before, after, before], 3)
    split, merged = followed.transitions
    assert split.churn == pytest.approx(4 / 20)
    assert (split.births, split.deaths) == ([2], [])
    assert (merged.births, merged.deaths) == ([], [2])
    assert followed.follow(0) == [0, 0, 0]
    assert followed.follow(2, at=1) == [-1, 2, -1]
    assert followed.sizes.tolist() == [[10, 10, 0], [6, 10, 4], [10, 10, 0]]


def test_a_match_of_few_images_is_a_death_and_a_birth():
    before = torch.arange(100) // 10
    after = torch.arange(100) % 10  # one image of each earlier cluster: overlap 1 / 19
    (found,) = ClusterHistory([before, after], 10).transitions
    assert found.churn == pytest.approx(0.9)
    assert found.births == found.deaths == list(range(10))
    assert not ClusterHistory([before, after], 10, least_overlap=0.05).transitions[0].deaths


def test_random_clusterings_have_almost_the_churn_of_chance():
    before, after = random_labels(20_000, 10, 0), random_labels(20_000, 10, 1)
    (found,) = ClusterHistory([before, after], 10).transitions
    assert 0.88 < found.churn < 0.9
    assert len(found.deaths) == 10


def test_images_without_a_cluster_are_left_out():
    before, after = torch.tensor([0, 0, 1, 1, -1, 1]), torch.tensor([1, 1, 0, 0, 1, -1])
    (found,) = ClusterHistory([before, after]).transitions
    assert found.churn == 0.0
    assert found.successor.tolist() == [1, 0]
    (nothing,) = ClusterHistory([torch.tensor([-1, 0]), torch.tensor([0, -1])]).transitions
    assert nothing.churn != nothing.churn


def test_many_clusters_are_matched_by_the_largest_overlaps_which_is_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(history, "MOST_MATCHED", 10)
    labels = random_labels(2000, 40, 0)
    moved = torch.where(torch.arange(2000) % 5 == 0, random_labels(2000, 40, 1), 39 - labels)
    with caplog.at_level(logging.INFO):
        greedy = ClusterHistory([labels, moved, labels], 40)
    assert len([line for line in caplog.messages if "approximate" in line]) == 1
    monkeypatch.undo()
    exact = ClusterHistory([labels, moved, labels], 40)
    for one, other in zip(greedy.transitions, exact.transitions, strict=True):
        assert one.churn >= other.churn
        assert torch.equal(one.successor, other.successor)  # where most images stay, both find the same


def test_clusterings_of_different_images_are_rejected():
    with pytest.raises(ValueError, match=r"found clusterings of \[2, 3\] images"):
        ClusterHistory([torch.zeros(2, dtype=torch.long), torch.zeros(3, dtype=torch.long)])
    with pytest.raises(ValueError, match=r"found clusterings of \[\] images"):
        ClusterHistory([])
