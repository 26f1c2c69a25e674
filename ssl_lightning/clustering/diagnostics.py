"""Metrics of a clustering: sizes, purity, and the agreement of two labelings."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.types import UNLABELLED

MOST_MATCHED = 2000
"""Clusters above which Hungarian matching takes too long to run at every clustering."""


def normalized_mutual_info(a: Int[Tensor, "N"], b: Int[Tensor, "N"]) -> float:
    """I(a; b) / sqrt(H(a) H(b)) by scikit-learn, between 0 and 1.

    The geometric mean is that of the DeepCluster papers (Caron et al. 2018, equation 7). Cluster ids are arbitrary. If
    one of the labelings has a single cluster, the result is 0; if both have, it is 1.

    Args:
        a: One labeling; rows that are -1 in either are left out. NaN if no row is left.
        b: The other labeling.
    """
    from sklearn.metrics import normalized_mutual_info_score

    a, b = _both_labeled(a, b)
    if not len(a):
        return float("nan")
    return float(normalized_mutual_info_score(a.numpy(), b.numpy(), average_method="geometric"))


def adjusted_mutual_info(a: Int[Tensor, "N"], b: Int[Tensor, "N"]) -> float:
    """Mutual information adjusted for chance, by scikit-learn; 0 for random labelings of any sizes.

    Args:
        a: One labeling; rows that are -1 in either are left out.
        b: The other labeling.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    a, b = _both_labeled(a, b)
    return float(adjusted_mutual_info_score(a.numpy(), b.numpy(), average_method="geometric"))


def reassigned(previous: Int[Tensor, "N"], current: Int[Tensor, "N"]) -> float:
    """Fraction of rows that changed cluster under the best one-to-one matching of ids (Hungarian algorithm).

    NaN above `MOST_MATCHED` clusters.
    """
    from scipy.optimize import linear_sum_assignment

    previous, current = _both_labeled(previous, current)
    if not len(previous) or max(len(previous.unique()), len(current.unique())) > MOST_MATCHED:
        return float("nan")
    counts = _contingency(previous, current)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return 1.0 - float(counts[rows, columns].sum() / counts.sum())


def size_metrics(sizes: Int[Tensor, "K"]) -> dict[str, float]:
    """Number of empty clusters, fraction of rows in the largest, entropy / ln K, and imbalance K sum(n^2) / N^2.

    Imbalance is 1 for clusters of equal size.
    """
    k, total = len(sizes), max(int(sizes.sum()), 1)
    shares = sizes.double() / total
    return {
        "empty": float((sizes == 0).sum()),
        "largest_share": float(shares.max()),
        "entropy": _entropy(shares) / math.log(k) if k > 1 else 0.0,
        "imbalance": float(k * shares.square().sum()),
    }


def purity(assigned: Int[Tensor, "N"], labels: Int[Tensor, "N"], k: int) -> Float[Tensor, "K"]:
    """Fraction of the labeled rows of each cluster that have its most frequent label; NaN without labeled rows.

    The baseline is the fraction of the most frequent label among all rows: the purity of one large cluster. Rows that
    are -1 in either labeling are left out.

    Args:
        assigned: Cluster of each row.
        labels: Class of each row.
        k: Number of clusters, including empty ones.
    """
    assigned, labels = _both_labeled(assigned, labels)
    classes = int(labels.max()) + 1 if len(labels) else 1
    pairs, counts = torch.unique(assigned * classes + labels, return_counts=True)  # never the whole K x C table
    clusters = pairs // classes
    commonest = torch.zeros(k, dtype=torch.int64).scatter_reduce(0, clusters, counts, "amax")
    return commonest / assigned.bincount(minlength=k)


def distances_to_means(features: Float[Tensor, "N D"], assigned: Int[Tensor, "N"], k: int) -> Float[Tensor, "N"]:
    """Euclidean distance of each row to the mean of its cluster; NaN for a row without a cluster.

    This serves labelings without stored centroids: the means are those of the given features.

    Args:
        features: Of each row.
        assigned: Cluster of each row, -1 where it has none.
        k: Number of clusters.
    """
    known = (assigned != UNLABELLED).nonzero().squeeze(1)
    own, members = assigned[known].long(), features[known]
    sizes = own.bincount(minlength=k).clamp(min=1).unsqueeze(1)
    means = torch.zeros(k, features.shape[1], dtype=features.dtype, device=features.device).index_add(0, own, members)
    distances = features.new_full((len(features),), torch.nan)
    distances[known] = (members - (means / sizes)[own]).norm(dim=1)
    return distances


def cluster_metrics(
    sizes: Int[Tensor, "K"],
    labels: Int[Tensor, "N"],
    previous: Int[Tensor, "N"] | None = None,
    true_labels: Int[Tensor, "N"] | None = None,
    objective: Sequence[float] = (),
) -> dict[str, float]:
    """All metrics of one clustering, without their prefix `cluster/`.

    Args:
        sizes: Rows of each cluster.
        labels: Cluster of each row, -1 where it has none.
        previous: Cluster of each row in the previous clustering; adds `nmi_previous` and `reassigned`.
        true_labels: Class of each row; adds `nmi_labels`, `ami_labels` and `nmi_chance`, the NMI of a random
            partition with the same cluster sizes. Chance NMI grows with K.
        objective: The sum of distances in each iteration, from a `Clustering`; adds `objective`, the last one divided
            by the number of clustered rows: the mean squared distance of a row to its centroid (cosine: 1 - cos).
    """
    metrics = size_metrics(sizes)
    if len(objective):
        metrics["objective"] = float(objective[-1]) / max(int(sizes.sum()), 1)
    if previous is not None:
        metrics["nmi_previous"] = normalized_mutual_info(labels, previous)
        metrics["reassigned"] = reassigned(previous, labels)
    if true_labels is not None and bool((true_labels != UNLABELLED).any()):
        metrics["nmi_labels"] = normalized_mutual_info(labels, true_labels)
        metrics["ami_labels"] = adjusted_mutual_info(labels, true_labels)
        metrics["nmi_chance"] = normalized_mutual_info(_shuffled(labels), true_labels)
    return metrics


def _shuffled(labels: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """The labels in a random order that is always the same."""
    labels = labels.cpu()
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


def _both_labeled(a: Int[Tensor, "N"], b: Int[Tensor, "N"]) -> tuple[Int[Tensor, "M"], Int[Tensor, "M"]]:
    a, b = a.cpu().long(), b.cpu().long()
    known = (a != UNLABELLED) & (b != UNLABELLED)
    return a[known], b[known]


def _contingency(a: Int[Tensor, "M"], b: Int[Tensor, "M"]) -> Float[Tensor, "R C"]:
    """How often each pair of used clusters occurs."""
    names_a, a = torch.unique(a, return_inverse=True)
    names_b, b = torch.unique(b, return_inverse=True)
    pairs = torch.bincount(a * len(names_b) + b, minlength=len(names_a) * len(names_b))
    return pairs.view(len(names_a), len(names_b)).double()


def _entropy(shares: Float[Tensor, "K"]) -> float:
    return float(torch.special.entr(shares).sum())
