"""The order of samples in an epoch, as a pure function of (seed, epoch) and, if balanced, of the clusters."""

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from ssl_lightning.counter_rng import Purpose, bits, permutation, permuted, uniform
from ssl_lightning.errors import DataError
from ssl_lightning.types import UNLABELLED

SORTED, KEYED = "sorted", "keyed"
"""Versions of the order of an epoch, which checkpoints store: sorted random numbers, and a keyed bijection."""
_MOST_SORTED = 1 << 20


def order_version(num_samples: int) -> str:
    """The version of a new run: `KEYED`, which needs no array of all rows, for more than 1,048,576 of them."""
    return KEYED if num_samples > _MOST_SORTED else SORTED


def epoch_order(seed: int, epoch: int, num_samples: int) -> Int[Tensor, "N"]:
    """Every row once, in random order."""
    return permutation(seed, Purpose.ORDER, epoch, num_samples)


def keyed_order(seed: int, epoch: int, num_samples: int, start: int, end: int) -> Int[Tensor, "M"]:
    """A section of an order in which every row occurs once; the order itself is never in memory.

    Args:
        seed: Seed of the run.
        epoch: Counted from zero.
        num_samples: Number of rows.
        start: First place of the section.
        end: One more than its last place.
    """
    return permuted(seed, Purpose.ORDER, epoch, torch.arange(start, end), num_samples)


def occurrences(order: Int[Tensor, "M"]) -> Int[Tensor, "M"]:
    """The number of earlier appearances of each row in an order: 0 for the first, and for all of a permutation."""
    rows, places = order.sort(stable=True)
    positions = torch.arange(len(order))
    new = torch.ones(len(order), dtype=torch.bool)
    new[1:] = rows[1:] != rows[:-1]
    first = torch.where(new, positions, 0).cummax(0).values
    return torch.empty_like(order).scatter_(0, places, positions - first)


def balanced_order(
    seed: int, epoch: int, labels: Int[Tensor, "N"], num_random: int, power: float = 1.0
) -> Int[Tensor, "M"]:
    """Rows sampled evenly over the non-empty clusters (DeepCluster, section 3.2, "trivial parametrization").

    Each of the K' non-empty clusters gives floor(M / K') + 1 samples; all samples are shuffled and cut to M. With a
    power below 1, a cluster of n rows gives a share of n^(1 - power) / sum of these, M samples in all.

    Args:
        seed: Seed of the run.
        epoch: Counted from zero.
        labels: Cluster of each row; rows with -1 are never sampled.
        num_random: M, usually the number of rows.
        power: 1 for equal shares, 0.5 for shares by the square root of the size, 0 for those of the clusters.

    Returns:
        Rows of `labels`, not positions in a list sorted by cluster: `labels[row]` is the cluster of the row.

    Raises:
        DataError: If no row has a cluster.

    Note:
        A cluster that is smaller than its quota is repeated in whole random permutations, so that every member occurs
        before any occurs again. Sampling with replacement, as in the authors' code, would leave some members out.
    """
    members = (labels != UNLABELLED).nonzero().flatten()
    if len(members) == 0:
        raise DataError(
            f"all {len(labels)} labels are {UNLABELLED}: a balanced order needs at least one cluster with a member"
        )
    shuffled = members[bits(seed, Purpose.BALANCE, epoch, members).argsort(stable=True)]
    by_cluster = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels[members].unique(return_counts=True)[1]  # [K']
    quotas = torch.full_like(sizes, num_random // len(sizes) + 1)
    if power < 1:
        # view=2: a random number that is independent of the others
        start = uniform(seed, Purpose.BALANCE, epoch, torch.tensor([0]), view=2).item()
        quotas = _quotas(sizes, num_random, power, start)
    own = torch.arange(len(sizes)).repeat_interleave(quotas)
    place = torch.arange(len(own)) - (quotas.cumsum(0) - quotas)[own]  # among the samples of the cluster
    samples = by_cluster[(sizes.cumsum(0) - sizes)[own] + place % sizes[own]]
    # view=1: random numbers that are independent of those that shuffled the members
    mixed = bits(seed, Purpose.BALANCE, epoch, torch.arange(len(samples)), view=1).argsort(stable=True)
    return samples[mixed[:num_random]]


def expected_samples(sizes: Int[Tensor, "K"], num_random: int, power: float) -> Float64[Tensor, "K"]:
    """The mean number of samples of each cluster in a balanced order, see `balanced_order`.

    Args:
        sizes: Number of rows of each cluster, none of them 0.
        num_random: Number of samples of all clusters.
        power: From 0 to 1.
    """
    weights = sizes.double() ** (1 - power)
    return weights * (num_random / weights.sum())  # the factor is exactly 1 for power 0 and all rows


def _quotas(sizes: Int[Tensor, "K"], num_random: int, power: float, start: float) -> Int[Tensor, "K"]:
    """Whole numbers of samples with the sum `num_random`: each is its mean rounded up or down.

    Systematic sampling: with a `start` that is uniform in [0, 1), the mean of each is exact.
    """
    ends = expected_samples(sizes, num_random, power).cumsum(0)
    ends[-1] = num_random  # the sum may differ by rounding
    return (ends + start).floor().long().diff(prepend=torch.zeros(1, dtype=torch.int64))
