"""The number of clusters: scores of k-means for several K and several seeds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.diagnostics import adjusted_mutual_info, normalized_mutual_info, size_metrics
from ssl_lightning.types import UNLABELLED


@dataclass(frozen=True)
class ClusterCountScore:
    """The scores of one K over several seeds.

    Attributes:
        k: K.
        objective: Mean squared distance of a row to its centroid (cosine: 1 - cos), per seed.
        imbalance: K sum(n^2) / N^2 per seed; 1 if all clusters have equal size.
        empty: Number of empty clusters per seed.
        stability: Adjusted mutual information of each pair of seeds: 1 for equal clusters, 0 for chance.
        nmi: NMI with the classes per seed; empty without labels.
        ami: Adjusted mutual information with the classes per seed; empty without labels.
    """

    k: int
    objective: list[float]
    imbalance: list[float]
    empty: list[float]
    stability: list[float]
    nmi: list[float]
    ami: list[float]


def score_cluster_counts(
    features: Float[Tensor, "N D"],
    labels: Int[Tensor, "N"],
    clusterer: Clusterer,
    ks: list[int],
    seeds: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Iterator[ClusterCountScore]:
    """Cluster for every K with every seed and yield the scores of one K at a time.

    Args:
        features: Features to cluster.
        labels: Classes, -1 where unknown.
        clusterer: The clustering algorithm.
        ks: Values of K.
        seeds: Number of seeds for each K, 0 to `seeds` - 1.
        progress: Wraps the list of (K, seed), for a progress bar.
    """
    made: list[Clustering] = []
    for k, seed in progress([(k, seed) for k in ks for seed in range(seeds)]):
        made.append(clusterer(features, k, seed))
        if seed == seeds - 1:
            yield _score(k, made, labels)
            made = []


def _score(k: int, made: list[Clustering], labels: Int[Tensor, "N"]) -> ClusterCountScore:
    assigned = [clustering.labels.cpu() for clustering in made]
    sizes = [size_metrics(clustering.sizes.cpu()) for clustering in made]
    known = bool((labels != UNLABELLED).any())
    return ClusterCountScore(
        k=k,
        objective=[float(clustering.objective[-1]) / len(labels) for clustering in made],
        imbalance=[size["imbalance"] for size in sizes],
        empty=[size["empty"] for size in sizes],
        stability=[adjusted_mutual_info(a, b) for a, b in combinations(assigned, 2)],
        nmi=[normalized_mutual_info(one, labels) for one in assigned] if known else [],
        ami=[adjusted_mutual_info(one, labels) for one in assigned] if known else [],
    )
