"""KMeans: Lloyd's algorithm on any device, Euclidean or spherical, over any number of processes."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from ssl_lightning.clustering.assign import nearest
from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.rows import ShardedRows, check, in_range, unit_rows
from ssl_lightning.clustering.starts import plus_plus, random_rows
from ssl_lightning.counter_rng import Purpose, number, permutation, uniform
from ssl_lightning.errors import UsageError

PERTURBATION = 1 / 1024
"""Relative shift between the centroid of a filled cluster and its donor, as in faiss."""
FEW_CLUSTERS = 64
"""Up to this number of clusters, rounding all rows takes longer than exact products, and on a GPU products with one-hot
labels are faster than scattered additions, which wait for each other."""
VALUES_AT_ONCE = 1 << 18
"""Differences to centroids in memory at a time on a CPU: 1 MB, which stays in the cache."""


@dataclass(frozen=True)
class KMeans(Clusterer):
    """k-means (Lloyd's algorithm), the default clusterer.

    Equal rows have equal labels, and features without any difference give one cluster with rows and others without.
    All rows are used unless `max_points` is given. Each process holds its rows; sums, counts and objective are
    all-reduced. Random choices are positions among all rows, so that the result does not depend on the number of
    processes.

    Args:
        metric: "l2", or "cosine" (spherical k-means: unit rows and unit centroids).
        init: "random" rows, or greedy "k-means++", which is better for long-tailed data.
        iterations: Largest number of iterations; the algorithm stops when no label changes.
        empty: "split" moves the centroid of an empty cluster into a large cluster; "keep" leaves it unchanged.
        max_points: Fit on a random subset of this size, then label all rows; None for all rows.
    """

    metric: Literal["l2", "cosine"] = "l2"
    init: Literal["random", "k-means++"] = "random"
    iterations: int = 20
    empty: Literal["split", "keep"] = "split"
    max_points: int | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1 or (self.max_points is not None and self.max_points < 1):
            raise UsageError(
                f"found iterations={self.iterations}, max_points={self.max_points}; expected at least 1 of each"
            )

    @torch.no_grad()
    def __call__(
        self, features: Float[Tensor, "N D"], k: int, seed: int = 0, group: ProcessGroup | None = None
    ) -> Clustering:
        """See `Clusterer`."""
        rows = prepared_rows(features, self.metric, group)
        check(rows, k)
        fitted = sampled_rows(rows, self.max_points, k, seed)
        centroids = start(fitted, k, seed, self.init, self.metric)
        squares = float(fitted.sum(fitted.features.norm(dim=1).double().square().sum()))
        cosine, objective, repairs, labels = self.metric == "cosine", [], 0, None
        for iteration in range(self.iterations):
            previous, labels = labels, nearest(fitted.features, centroids, cosine, fast=k > FEW_CLUSTERS)
            sums = fitted.sum(sums_by_label(fitted.features, labels, k))
            sizes = fitted.sum(labels.bincount(minlength=k))
            objective.append(_objective(squares, sums, sizes, centroids, cosine))
            if previous is not None and int(fitted.sum((labels != previous).sum())) == 0:
                break
            centroids = self._means(sums, sizes, centroids)
            if self.empty == "split" and iteration + 1 < self.iterations:
                repairs += self._split(centroids, sizes, number(seed, Purpose.CLUSTERING, iteration, view=1))
        return final_clustering(rows, centroids, self.metric, objective, repairs)

    def _means(
        self, sums: Float[Tensor, "K D"], sizes: Int[Tensor, "K"], centroids: Float[Tensor, "K D"]
    ) -> Float[Tensor, "K D"]:
        """The mean of each cluster (for cosine, its direction); the centroid of an empty cluster is unchanged."""
        if self.metric == "cosine":
            length = sums.norm(dim=1, keepdim=True)
            return torch.where(length > 1e-12, sums / length.clamp(min=1e-12), centroids)
        return torch.where(sizes.unsqueeze(1) > 0, sums / sizes.clamp(min=1).unsqueeze(1), centroids)

    def _split(self, centroids: Float[Tensor, "K D"], sizes: Int[Tensor, "K"], seed: int) -> int:
        """Move the centroid of each empty cluster next to that of a large cluster, in place; return their number.

        A donor is sampled with probability proportional to its size - 1, as in faiss.
        """
        empty = (sizes == 0).nonzero().squeeze(1)
        weights = (sizes - 1).clamp(min=0).double().cumsum(0)
        if not len(empty) or weights[-1] == 0:
            return 0
        fractions = uniform(seed, Purpose.CLUSTERING, 0, empty).squeeze(1).double()
        donors = torch.searchsorted(weights, fractions * weights[-1], right=True).clamp(max=len(sizes) - 1)
        signs = 2.0 * (uniform(seed, Purpose.CLUSTERING, 1, empty, count=centroids.shape[1]) < 0.5) - 1.0
        centroids[empty] = centroids[donors] * (1 + PERTURBATION * signs)
        if self.metric == "cosine":
            centroids[empty] = F.normalize(centroids[empty], dim=1)
        return len(empty)


def prepared_rows(features: Float[Tensor, "N D"], metric: str, group: ProcessGroup | None) -> ShardedRows:
    """Features in float32, contiguous, in a range that can be squared; of unit length for the cosine metric."""
    features = features.detach().float().contiguous()
    return ShardedRows(unit_rows(features), group) if metric == "cosine" else in_range(ShardedRows(features, group))


def sampled_rows(rows: ShardedRows, max_points: int | None, k: int, seed: int) -> ShardedRows:
    """The rows to fit on: all, or `max_points` of them (at least k)."""
    if max_points is None or max_points >= rows.total:
        return rows
    sampled = permutation(seed, Purpose.CLUSTERING, 2, rows.total)[: max(max_points, k)].sort().values
    return ShardedRows(rows.features[rows.own(sampled)], rows.group)


def start(rows: ShardedRows, k: int, seed: int, init: str, metric: str) -> Float[Tensor, "K D"]:
    """The initial centroids."""
    if init == "k-means++":
        return plus_plus(rows, k, seed, metric == "cosine")
    return rows.take(random_rows(rows, k, seed))


def final_clustering(
    rows: ShardedRows, centroids: Float[Tensor, "K D"], metric: str, objective: list[float], repairs: int
) -> Clustering:
    """Label every row with its nearest centroid."""
    labels = nearest(rows.features, centroids, metric == "cosine")
    return clustering_of(rows, labels, centroids, metric, objective, repairs)


def clustering_of(
    rows: ShardedRows,
    labels: Int[Tensor, "N"],
    centroids: Float[Tensor, "K D"],
    metric: str,
    objective: list[float],
    repairs: int,
) -> Clustering:
    """The `Clustering` of given labels, with exact distances and sizes, in the scale of the given features.

    A distance that exceeds the range of float32 is the largest float32.
    """
    distances = _distances(rows.features, centroids, labels, metric == "cosine")
    sizes = rows.sum(labels.bincount(minlength=len(centroids)))
    objective = [*objective, float(rows.sum(distances.double().sum()))]
    if rows.scale != 1:
        objective = [value / rows.scale**2 for value in objective]
        distances = (distances.double() / rows.scale**2).clamp(max=torch.finfo(torch.float32).max).float()
        centroids = centroids / rows.scale
    return Clustering(labels, distances, centroids, sizes, objective, repairs)


def sums_by_label(features: Float[Tensor, "N D"], labels: Int[Tensor, "N"], k: int) -> Float[Tensor, "K D"]:
    """The sum of the rows of each cluster. A CPU adds them cluster by cluster, which keeps the sum in registers."""
    if features.device.type == "cpu" and len(labels):
        ends = labels.bincount(minlength=k).cumsum(0)
        return F.embedding_bag(_by_label(labels, k), features, torch.cat([ends.new_zeros(1), ends[:-1]]), mode="sum")
    if k <= FEW_CLUSTERS:
        members = torch.zeros(k, len(labels), device=features.device)
        members.scatter_(0, labels.unsqueeze(0), 1.0)
        return members @ features
    return features.new_zeros(k, features.shape[1]).index_add_(0, labels, features)


def _by_label(labels: Int[Tensor, "N"], k: int) -> Int[Tensor, "N"]:
    """Rows sorted by cluster. NumPy sorts 16-bit integers by counting."""
    if k > 1 << 15:
        return labels.argsort(stable=True)
    return torch.from_numpy(labels.short().numpy().argsort(kind="stable"))


def _objective(
    squares: float,
    sums: Float[Tensor, "K D"],
    sizes: Int[Tensor, "K"],
    centroids: Float[Tensor, "K D"],
    cosine: bool,
) -> float:
    """Sum of all distances, from sums over clusters only: sum |x|^2 - 2 sum_k s_k.c_k + sum_k n_k |c_k|^2."""
    products = float((sums.double() * centroids.double()).sum())
    if cosine:
        return max(0.0, float(sizes.sum()) - products)
    return max(0.0, squares - 2 * products + float((sizes.double() * centroids.double().square().sum(1)).sum()))


def _distances(
    features: Float[Tensor, "N D"], centroids: Float[Tensor, "K D"], labels: Int[Tensor, "N"], cosine: bool
) -> Float[Tensor, "N"]:
    """Distances to the row's centroid, from differences and not from products: 0 if the row equals the centroid."""
    parts = [features.new_zeros(0)]
    size = max(1, VALUES_AT_ONCE // features.shape[1]) if features.device.type == "cpu" else 8192
    for block, own in zip(features.split(size), labels.split(size), strict=True):
        difference = (block - centroids.index_select(0, own)).square_().sum(1)
        parts.append(difference)
    squared = torch.cat(parts)
    if not cosine:
        return squared
    # |x - c|^2 = |x|^2 + |c|^2 - 2 x.c; a zero row has no direction and has distance 1 to every centroid
    norms = features.square().sum(1) + centroids.square().sum(1)[labels]
    return 1 - (norms - squared) / 2
