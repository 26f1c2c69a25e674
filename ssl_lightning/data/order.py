"""The order of samples in an epoch, as a pure function of (seed, epoch) and, if balanced, of the clusters."""

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.counter_rng import Purpose, bits, permutation, permuted
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


def balanced_order(seed: int, epoch: int, labels: Int[Tensor, "N"], num_random: int) -> Int[Tensor, "M"]:
    """Rows sampled uniformly over the non-empty clusters (DeepCluster, section 3.2, "trivial parametrization").

    Each of the K' non-empty clusters gives floor(M / K') + 1 samples; all samples are shuffled and cut to M.

    Args:
        seed: Seed of the run.
        epoch: Counted from zero.
        labels: Cluster of each row; rows with -1 are never sampled.
        num_random: M, usually the number of rows.

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
    starts = sizes.cumsum(0) - sizes
    quota = num_random // len(sizes) + 1
    places = starts.unsqueeze(1) + torch.arange(quota) % sizes.unsqueeze(1)  # [K', quota]
    samples = by_cluster[places.flatten()]
    # view=1: random numbers that are independent of those that shuffled the members
    mixed = bits(seed, Purpose.BALANCE, epoch, torch.arange(len(samples)), view=1).argsort(stable=True)
    return samples[mixed[:num_random]]
