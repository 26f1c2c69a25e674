"""The order of samples in an epoch, as a pure function of (seed, epoch) and, if balanced, of the clusters."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from ssl_lightning.counter_rng import Purpose, bits, number, permutation, permuted, uniform
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.types import UNLABELLED

SORTED, KEYED = "sorted", "keyed"
"""Versions of the order of an epoch, which checkpoints store: sorted random numbers, and a keyed bijection."""
FULL, BLOCKS = "full", "blocks"
"""The orders that a user chooses from: over all rows, or over blocks of them."""
_MOST_SORTED = 1 << 20


@dataclass(frozen=True)
class Blocks:
    """The blocks of a blockwise order.

    Attributes:
        rows: Consecutive rows of a block, such as those of one section of a shard.
        window: Number of blocks that are shuffled together.
    """

    rows: int = 1024
    window: int = 16

    def __str__(self) -> str:
        return f"{BLOCKS} of {self.rows} rows, {self.window} in a window"

    def __post_init__(self) -> None:
        for name in ("rows", "window"):
            if getattr(self, name) < 1:
                raise UsageError(f"found data.blocks.{name}={getattr(self, name)}; expected at least 1")


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


class BlockOrder:
    """An order in which every row occurs once, and which reads from a few blocks of rows at a time.

    Blocks of consecutive rows are shuffled. Each window of blocks is then shuffled row by row, after all rows of the
    window before. The order is a function of its arguments alone, and memory grows with the number of blocks.

    Args:
        seed: Seed of the run.
        epoch: Counted from zero.
        num_samples: Number of rows.
        blocks: Size of blocks and windows.
    """

    def __init__(self, seed: int, epoch: int, num_samples: int, blocks: Blocks) -> None:
        self.seed, self.epoch = seed, epoch
        count = -(-num_samples // blocks.rows)
        self.first_rows = permuted(seed, Purpose.BLOCKS, epoch, torch.arange(count), count) * blocks.rows
        sizes = (num_samples - self.first_rows).clamp(max=blocks.rows)  # the last block may be shorter
        self.ends = sizes.cumsum(0)
        self.starts = self.ends - sizes
        last_blocks = torch.arange(blocks.window, count + blocks.window, blocks.window).clamp(max=count) - 1
        self.window_ends = self.ends[last_blocks]

    def section(self, start: int, end: int) -> Int[Tensor, "M"]:
        """The rows at the places from `start` to `end` - 1."""
        found = []
        while start < end:
            window = int(torch.searchsorted(self.window_ends, start, right=True))
            window_end = int(self.window_ends[window])
            window_start = int(self.window_ends[window - 1]) if window else 0
            places = torch.arange(start, min(end, window_end)) - window_start
            # every window has a key of its own
            key = number(self.seed, Purpose.BLOCKS, self.epoch, window)
            places = permuted(key, Purpose.BLOCKS, self.epoch, places, window_end - window_start) + window_start
            block = torch.searchsorted(self.ends, places, right=True)
            found.append(self.first_rows[block] + places - self.starts[block])
            start = min(end, window_end)
        return torch.cat(found)


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
