"""Orders are functions of (seed, epoch): complete, without repeats, balanced on request."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_lightning.counter_rng import Purpose, bits
from ssl_lightning.data.order import balanced_order, epoch_order, expected_samples, occurrences

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


def equal_shares(seed, epoch, labels, num_random):
    """The balanced order of the first release, cluster by cluster: checkpoints in mid-epoch depend on it."""
    members = (labels != -1).nonzero().flatten()
    shuffled = members[bits(seed, Purpose.BALANCE, epoch, members).argsort(stable=True)]
    clusters = [shuffled[labels[shuffled] == label] for label in labels[members].unique()]
    quota = num_random // len(clusters) + 1
    samples = torch.cat([cluster[torch.arange(quota) % len(cluster)] for cluster in clusters])
    mixed = bits(seed, Purpose.BALANCE, epoch, torch.arange(len(samples)), view=1).argsort(stable=True)
    return samples[mixed[:num_random]]


@given(cluster_sizes, st.integers(0, 2**62), st.integers(0, 100), st.integers(1, 400))
def test_equal_shares_have_the_order_that_they_always_had(sizes, seed, epoch, length):
    labels = torch.cat([labels_of(sizes), torch.tensor([-1, -1])])
    assert torch.equal(balanced_order(seed, epoch, labels, length), equal_shares(seed, epoch, labels, length))


@given(cluster_sizes, st.integers(0, 50), st.integers(1, 400), st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_a_power_gives_each_cluster_its_share_rounded_up_or_down(sizes, epoch, length, power):
    labels = labels_of(sizes)
    order = balanced_order(3, epoch, labels, length, power)
    counts = labels[order].bincount(minlength=len(sizes)).double()
    weights = [size ** (1 - power) if size else 0.0 for size in sizes]
    expected = torch.tensor([length * weight / sum(weights) for weight in weights], dtype=torch.float64)
    assert len(order) == length
    assert float((counts - expected).abs().max()) < 1 + 1e-6
    filled = [size for size in sizes if size]
    means = expected_samples(torch.tensor(filled), length, power)
    assert torch.allclose(means, expected[torch.tensor(sizes) > 0])


@given(cluster_sizes, st.integers(0, 50))
def test_power_zero_is_a_permutation(sizes, epoch):
    labels = labels_of(sizes)
    assert balanced_order(0, epoch, labels, len(labels), 0.0).sort().values.tolist() == list(range(len(labels)))


def test_shares_that_are_no_whole_numbers_are_met_on_average():
    labels = labels_of([1, 10, 100])
    counts = torch.stack([labels[balanced_order(0, epoch, labels, 20, 0.5)].bincount() for epoch in range(2000)])
    expected = expected_samples(torch.tensor([1, 10, 100]), 20, 0.5)
    assert torch.allclose(counts.double().mean(0), expected, atol=0.05)  # standard error 0.011
    assert (counts - expected).abs().max() < 1
