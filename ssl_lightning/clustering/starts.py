"""Initialization of k-means: random rows, or k-means++ (Arthur and Vassilvitskii 2007)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.rows import ShardedRows
from ssl_lightning.counter_rng import Purpose, bits, permutation


def random_rows(rows: ShardedRows, k: int, seed: int) -> Int[Tensor, "k"]:
    """Positions of k different rows among all rows."""
    return permutation(seed, Purpose.CLUSTERING, 0, rows.total)[:k]


def plus_plus(rows: ShardedRows, k: int, seed: int, cosine: bool) -> Float[Tensor, "k D"]:
    """Greedy k-means++: each center is the best of 2 + ln k candidate rows sampled by squared distance.

    All candidates of a step share one matrix product that reads the features once. The cost is about that of (2 + ln k)
    / 2 iterations of Lloyd's algorithm, and k passes over the features in memory traffic.

    Args:
        rows: The features; unit rows for the cosine metric.
        k: Number of centers.
        seed: Seed of the random choices.
        cosine: Whether the distance is 1 - cos instead of squared Euclidean.
    """
    features = rows.features
    trials = 2 + int(math.log(k))
    norms = features.square().sum(1)
    centers = rows.take(random_rows(rows, 1, seed))
    closest = _distances(features, norms, centers, cosine).squeeze(0)  # [N]
    for step in range(1, k):
        candidates = rows.take(_draw_by_weight(rows, closest, trials, seed, step))  # [T, D]
        distances = torch.minimum(_distances(features, norms, candidates, cosine), closest)  # [T, N]
        potential = rows.sum(distances.double().sum(1))
        best = int(potential.argmin())
        closest = distances[best]
        centers = torch.cat([centers, candidates[best : best + 1]])
    return centers


def _distances(
    features: Float[Tensor, "N D"], norms: Float[Tensor, "N"], centers: Float[Tensor, "T D"], cosine: bool
) -> Float[Tensor, "T N"]:
    products = centers @ features.T
    if cosine:
        return (1 - products).clamp_(min=0)
    return (norms + centers.square().sum(1, keepdim=True) - 2 * products).clamp_(min=0)


def _draw_by_weight(
    rows: ShardedRows, weights: Float[Tensor, "N"], count: int, seed: int, step: int
) -> Int[Tensor, "T"]:
    """Sample positions among all rows with probability proportional to their weights; uniform if all weights are 0."""
    cumulative = weights.double().cumsum(0)
    own = cumulative[-1:] if len(cumulative) else cumulative.new_zeros(1)
    totals = rows.gather(own)
    fractions = (bits(seed, Purpose.CLUSTERING, step, torch.arange(count)) >> 11 & (1 << 53) - 1).double() * 2.0**-53
    if float(totals.sum()) == 0:
        return (fractions * rows.total).long()
    targets = fractions.to(totals.device) * totals.sum()
    starts = totals.cumsum(0) - totals
    rank = 0 if rows.group is None else rows.group.rank()
    inside = (targets >= starts[rank]) & (targets < starts[rank] + totals[rank])
    local = torch.searchsorted(cumulative, targets - starts[rank], right=True).clamp(max=max(len(weights) - 1, 0))
    # exactly one process owns each target; a target beyond the sum, by rounding, is the last row
    found = torch.where(inside, local + rows.offset + 1, torch.zeros_like(local))
    return (rows.sum(found) - 1).clamp(min=0).cpu()
