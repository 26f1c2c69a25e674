"""How many clusters: what k-means gives for several K and several starts, in numbers to choose by."""

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
class Choice:
    """One K, over several starts.

    Attributes:
        k: K.
        objective: Mean squared distance of a row to its centroid (cosine: 1 - cos), of each start.
        imbalance: K sum(n^2) / N^2 of each start, 1 when all clusters are equal.
        empty: Empty clusters of each start.
        stability: Adjusted mutual information of each pair of starts: 1 the same clusters, 0 as alike as random ones.
        nmi: With the classes, of each start; none without labels.
        ami: Adjusted mutual information with the classes, of each start; none without labels.
    """

    k: int
    objective: list[float]
    imbalance: list[float]
    empty: list[float]
    stability: list[float]
    nmi: list[float]
    ami: list[float]


def choices(
    features: Float[Tensor, "N D"],
    labels: Int[Tensor, "N"],
    clusterer: Clusterer,
    ks: list[int],
    seeds: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Iterator[Choice]:
    """Cluster for every K with every seed; yields one K at a time.

    Args:
        features: As they are to be clustered.
        labels: Classes, -1 where unknown.
        clusterer: How.
        ks: Every K.
        seeds: How many starts of each, 0 to `seeds` - 1.
        progress: What the list of (K, seed) is wrapped in, for a bar.
    """
    made: list[Clustering] = []
    for k, seed in progress([(k, seed) for k in ks for seed in range(seeds)]):
        made.append(clusterer(features, k, seed))
        if seed == seeds - 1:
            yield _choice(k, made, labels)
            made = []


def _choice(k: int, made: list[Clustering], labels: Int[Tensor, "N"]) -> Choice:
    assigned = [clustering.labels.cpu() for clustering in made]
    sizes = [size_metrics(clustering.sizes.cpu()) for clustering in made]
    known = bool((labels != UNLABELLED).any())
    return Choice(
        k=k,
        objective=[float(clustering.objective[-1]) / len(labels) for clustering in made],
        imbalance=[size["imbalance"] for size in sizes],
        empty=[size["empty"] for size in sizes],
        stability=[adjusted_mutual_info(a, b) for a, b in combinations(assigned, 2)],
        nmi=[normalized_mutual_info(one, labels) for one in assigned] if known else [],
        ami=[adjusted_mutual_info(one, labels) for one in assigned] if known else [],
    )
