"""Orders are functions of (seed, epoch): complete, without repeats, balanced on request."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_lightning.data.order import balanced_order, epoch_order, occurrences

cluster_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


def labels_of(sizes, seed=0):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@given(st.integers(0, 2**62), st.integers(0, 10_000), st.integers(0, 300))
def test_an_epoch_visits_every_row_once(seed, epoch, count):
    assert epoch_order(seed, epoch, count).sort().values.tolist() == list(range(count))


def test_epochs_and_seeds_differ_and_the_same_pair_gives_the_same_order():
    first = epoch_order(3, 7, 500)
    assert torch.equal(first, epoch_order(3, 7, 500))
    assert not torch.equal(first, epoch_order(3, 8, 500))
    assert not torch.equal(first, epoch_order(4, 7, 500))


def test_each_row_is_early_as_often_as_late():
    places = torch.stack([epoch_order(0, epoch, 20).argsort() for epoch in range(2000)]).float()
    mean, expected, spread = places.mean(0), 9.5, (399 / 12) ** 0.5 / 2000**0.5
    assert ((mean - expected).abs() < 4.5 * spread).all()


@given(cluster_sizes, st.integers(0, 2**62), st.integers(0, 100), st.integers(1, 400))
def test_clusters_of_any_size_get_equal_shares_within_the_quota(sizes, seed, epoch, length):
    labels = labels_of(sizes)
    order = balanced_order(seed, epoch, labels, length)
    filled = sum(size > 0 for size in sizes)
    quota = length // filled + 1
    counts = labels[order].bincount(minlength=len(sizes))
    assert len(order) == length
    assert (counts <= quota).all()
    assert (counts[torch.tensor(sizes) == 0] == 0).all()
    assert filled * quota - length <= filled  # what the cut may take away in all


def test_sizes_from_one_to_five_thousand_get_equal_shares():
    sizes = [1, 2, 7, 50, 0, 400, 5000]
    labels = labels_of(sizes)
    counts = labels[balanced_order(0, 0, labels, len(labels))].bincount(minlength=7)
    quota = len(labels) // 6 + 1
    assert counts[4] == 0
    assert (counts[[0, 1, 2, 3, 5, 6]] - quota).abs().max() <= 6


@given(cluster_sizes, st.integers(0, 50))
def test_no_member_comes_again_before_every_member_came(sizes, epoch):
    labels = labels_of(sizes)
    full = balanced_order(1, epoch, labels, sum(size > 0 for size in sizes) * 100 - 1)
    visits = full.bincount(minlength=len(labels))
    for cluster, size in enumerate(sizes):
        if size:
            mine = visits[labels == cluster]
            assert mine.max() - mine.min() <= 2  # one for a broken round, one for the sample that the cut removed


def test_a_sampled_row_is_a_row_of_the_table_and_not_of_a_list_sorted_by_cluster():
    labels = torch.tensor([2, 0, 1, 2, 2, 0])
    order = balanced_order(0, 0, labels, 3000)
    assert labels[order].bincount().tolist() == pytest.approx([1000, 1000, 1000], abs=3)


def test_rows_without_a_cluster_are_never_sampled():
    labels = torch.tensor([-1, 0, -1, 1, 1])
    assert set(balanced_order(0, 0, labels, 100).tolist()) == {1, 3, 4}


def test_no_cluster_at_all_is_an_error_in_one_line():
    with pytest.raises(ValueError, match="all 3 labels are -1"):
        balanced_order(0, 0, torch.tensor([-1, -1, -1]), 3)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_balanced_samples_of_equal_clusters_are_in_random_order(epoch):
    labels = torch.arange(1000) % 2
    order = labels[balanced_order(0, epoch, labels, 1000)]
    changes = int((order[1:] != order[:-1]).sum())
    assert 400 < changes < 600  # 500 expected, standard deviation 16


@given(st.lists(st.integers(0, 5), max_size=40))
def test_occurrences_count_earlier_appearances(rows):
    expected = [rows[:place].count(row) for place, row in enumerate(rows)]
    assert occurrences(torch.tensor(rows, dtype=torch.int64)).tolist() == expected


def test_a_permutation_has_no_second_occurrence():
    assert not occurrences(epoch_order(3, 1, 200)).any()
