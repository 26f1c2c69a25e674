"""Balanced samples of a tree of clusters: equal shares at every level, as far as the clusters have rows."""

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.members import place_in_cluster
from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.errors import UsageError

Choice = Literal["closest", "random"]
"""Rows of a cluster: those nearest to its centroid, or any."""


def balanced_sample(tree: list[Clustering], total: int, seed: int = 0, choice: Choice = "closest") -> Int[Tensor, "T"]:
    """Rows sampled from a tree of clusters, balanced from the top down (Vo et al. 2024, arXiv 2405.15613, section 3.3).

    At each node, the children get equal quotas, up to their numbers of rows; what small children leave goes to the
    others. One clustering is a tree too: the baseline of flat clusters.

    Args:
        tree: Clusterings from the images up: of the rows, then of the centroids below.
        total: T, the size of the sample; all rows if there are fewer.
        seed: Seed of the random choices.
        choice: Which rows of a cluster of the images.

    Returns:
        Rows, ascending, without repetition.

    Raises:
        UsageError: For a total below 1.
    """
    if total < 1:
        raise UsageError(f"found a sample of {total} rows; expected at least 1")
    rows = len(tree[0].labels)
    parents = [level.labels.long().cpu() for level in tree]
    sizes = _rows_below(parents, [len(level.sizes) for level in tree])
    quotas = shared_out(torch.zeros_like(sizes[-1]), sizes[-1], torch.tensor([min(total, rows)]), seed)
    for level in range(len(tree) - 1, 0, -1):
        quotas = shared_out(parents[level], sizes[level - 1], quotas, seed + level)
    random = permutation(seed, Purpose.SUBSET, 0, rows)
    keys = tree[0].distances.cpu() if choice == "closest" else random
    return (place_in_cluster(parents[0], keys) < quotas[parents[0]]).nonzero().squeeze(1)


def uniform_sample(rows: int, total: int, seed: int = 0) -> Int[Tensor, "T"]:
    """The baseline: random rows, ascending, without repetition.

    Args:
        rows: Number of rows.
        total: Size of the sample; all rows if there are fewer.
        seed: Seed of the choice.
    """
    return permutation(seed, Purpose.SUBSET, 0, rows)[:total].sort().values


def shared_out(
    parents: Int[Tensor, "C"], sizes: Int[Tensor, "C"], quotas: Int[Tensor, "P"], seed: int = 0
) -> Int[Tensor, "C"]:
    """Quotas of children: min(cap, size), with the largest cap that the quota of the parent allows.

    What is left below one more for each child goes to random ones of those that have more rows than the cap.

    Args:
        parents: Parent of each child.
        sizes: Rows below each child.
        quotas: Rows of each parent, at most the rows below it.
        seed: Seed of the random choices.
    """
    order = sizes.argsort(stable=True)
    order = order[parents[order].argsort(stable=True)]  # by parent, then by size
    own, size = parents[order], sizes[order]
    count = own.bincount(minlength=len(quotas))
    first = count.cumsum(0) - count
    place = torch.arange(len(order)) - first[own]
    before = size.cumsum(0) - size
    before = before - before[first[own]]  # rows of the smaller siblings
    takes_all = before + (count[own] - place) * size <= quotas[own]
    whole = torch.zeros_like(count).index_add_(0, own[takes_all], torch.ones_like(own[takes_all]))
    rows = torch.zeros_like(count).index_add_(0, own[takes_all], size[takes_all])
    left, rest = count - whole, quotas - rows
    cap = rest // left.clamp(min=1)
    more = rest - cap * left
    lot = permutation(seed, Purpose.SUBSET, 1, len(order))
    lots = place_in_cluster(own, torch.where(takes_all, len(order), 0) + lot)  # those above the cap come first
    shares = torch.where(takes_all, size, cap[own] + (~takes_all & (lots < more[own])))
    shared = torch.empty_like(shares)
    shared[order] = shares
    return shared


def _rows_below(parents: list[Int[Tensor, "_n"]], counts: list[int]) -> list[Int[Tensor, "_k"]]:
    """Number of rows below each node of each level."""
    weights, sizes = torch.ones_like(parents[0]), []
    for labels, count in zip(parents, counts, strict=True):
        weights = torch.zeros(count, dtype=torch.int64).index_add_(0, labels, weights)
        sizes.append(weights)
    return sizes
