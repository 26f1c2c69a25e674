"""HierarchicalKMeans: k-means on k-means, with resampling, for clusters that follow the support and not the density."""

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed import ProcessGroup

from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.kmeans import KMeans, clustering_of, final_clustering, prepared_rows
from ssl_lightning.clustering.members import place_in_cluster
from ssl_lightning.clustering.rows import ShardedRows, check
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.errors import UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HierarchicalKMeans(Clusterer):
    """Hierarchical k-means with resampling (Vo et al. 2024, arXiv 2405.15613, section 3).

    The first level clusters the images, each further level the centroids of the level below; the last level has the k
    of the call. Centroids of k-means follow the density, so that frequent concepts take most of them. Resampling
    flattens this: k-means is fitted again, from a fresh start, on the rows nearest to each centroid, the same number
    for each, and all rows of the level are assigned to the new centroids.

    A label is that of the last level by way of the levels below, which is not always the nearest centroid of the last
    level.

    Args:
        levels: Numbers of clusters of the levels below the last one, from the images up, each smaller than the one
            before; the published setting for ten million images is 500000, 50000, 10000 and a last level of 1000.
            Empty for one level, flat k-means with resampling.
        metric: "l2", or "cosine" (unit rows and unit centroids).
        iterations: Of each k-means, from a k-means++ start.
        rounds: Rounds of resampling of each level; 0 for none.
        kept: Rows that are kept of each cluster in a round, for each level and the last one; 1 turns resampling off at
            a level. null for half the mean size of a cluster.

    Raises:
        UsageError: For levels that do not decrease, or numbers out of range.
    """

    labels_are_nearest: ClassVar[bool] = False
    levels: tuple[int, ...] = ()
    metric: Literal["l2", "cosine"] = "l2"
    iterations: int = 50
    rounds: int = 10
    kept: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if any(lower <= upper for lower, upper in zip(self.levels, self.levels[1:], strict=False)) or 0 in self.levels:
            raise UsageError(f"found levels={list(self.levels)}; expected decreasing numbers of clusters")
        if self.iterations < 1 or self.rounds < 0 or any(kept < 1 for kept in self.kept or ()):
            raise UsageError(
                f"found iterations={self.iterations}, rounds={self.rounds}, kept={self.kept}; expected iterations and "
                "kept of at least 1, rounds of at least 0"
            )
        if self.kept is not None and len(self.kept) != len(self.levels) + 1:
            raise UsageError(
                f"found kept={list(self.kept)} for {len(self.levels) + 1} levels; expected a number for each level and "
                "the last one"
            )

    @torch.no_grad()
    def __call__(
        self, features: Float[Tensor, "N D"], k: int, seed: int = 0, group: ProcessGroup | None = None
    ) -> Clustering:
        """See `Clusterer`."""
        tree = self.tree(features, k, seed, group)
        labels = top_labels(tree)
        rows = prepared_rows(features, self.metric, group)
        return clustering_of(rows, labels, tree[-1].centroids * rows.scale, self.metric, objective=[], repairs=0)

    @torch.no_grad()
    def tree(
        self, features: Float[Tensor, "N D"], k: int, seed: int = 0, group: ProcessGroup | None = None
    ) -> list[Clustering]:
        """The clusterings of all levels, from the images up: of the features, then of the centroids below.

        Args:
            features: See `Clusterer`.
            k: Clusters of the last level.
            seed: Seed of all random choices.
            group: See `Clusterer`. Levels above the first are computed on every process.

        Raises:
            UsageError: For k that is not below the last of `levels`, or more clusters than rows.
            DataError: For features that are not finite.
        """
        if self.levels and k >= self.levels[-1]:
            raise UsageError(f"found k={k} and levels={list(self.levels)}; expected k below {self.levels[-1]}")
        below, found = features, []
        for level, count in enumerate((*self.levels, k)):
            found.append(self._level(below, count, level, number(seed, Purpose.CLUSTERING, level, view=3), group))
            below, group = found[-1].centroids, None
        return found

    def _level(
        self, features: Float[Tensor, "N D"], k: int, level: int, seed: int, group: ProcessGroup | None
    ) -> Clustering:
        rows = prepared_rows(features, self.metric, group)
        check(rows, k)
        kmeans = KMeans(self.metric, "k-means++", self.iterations)
        clustering = kmeans(features, k, seed, group)
        kept = self.kept[level] if self.kept is not None else max(1, rows.total // (2 * k))
        for round_ in range(self.rounds if kept > 1 else 0):
            selected = nearest_members(rows, clustering, kept)
            if len(selected) < k:
                log.info(
                    f"level {level + 1} of {k} clusters: no resampling after {round_} rounds, {len(selected)} rows"
                )
                break
            own = features[rows.own(selected)]
            centroids = kmeans(own, k, number(seed, Purpose.CLUSTERING, round_, view=4), group).centroids
            clustering = final_clustering(rows, centroids * rows.scale, self.metric, [], 0)
        return clustering


def top_labels(tree: list[Clustering]) -> Int[Tensor, "N"]:
    """The cluster of each row in the last level, by way of the levels below.

    Args:
        tree: From `HierarchicalKMeans.tree`.
    """
    labels = tree[0].labels
    for level in tree[1:]:
        labels = level.labels.to(labels.device)[labels]
    return labels


def nearest_members(rows: ShardedRows, clustering: Clustering, count: int) -> Int[Tensor, "m"]:
    """Positions of the rows nearest to the centroid of each cluster among all rows, ascending; equal on all processes.

    Args:
        rows: The rows.
        clustering: Labels and distances of the rows of this process.
        count: Rows of each cluster, at most. Of equally distant ones, the first.
    """
    k, device = len(clustering.sizes), clustering.labels.device
    place = place_in_cluster(clustering.labels, clustering.distances)
    near = place < count
    labels, places = clustering.labels[near], place[near]
    distances = torch.full((k, count), torch.inf, device=device)
    positions = torch.full((k, count), rows.total, dtype=torch.int64, device=device)
    distances[labels, places] = clustering.distances[near].float()
    positions[labels, places] = near.nonzero().squeeze(1) + rows.offset
    if rows.group is not None:
        world = rows.group.size()
        distances = rows.gather(distances).view(world, k, count).transpose(0, 1).reshape(k, -1)
        positions = rows.gather(positions).view(world, k, count).transpose(0, 1).reshape(k, -1)
    # processes are in row order, so that a stable sort keeps the first of equal distances
    order = distances.argsort(dim=1, stable=True)[:, :count]
    chosen = positions.gather(1, order).flatten()
    return chosen[chosen < rows.total].sort().values.cpu()
