"""What a clustering looks like, and how two labellings agree."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.types import UNLABELLED

MOST_MATCHED = 2000
"""Clusters above which Hungarian matching takes too long to run at every clustering."""


def normalized_mutual_info(a: Int[Tensor, "N"], b: Int[Tensor, "N"]) -> float:
    """I(a; b) / sqrt(H(a) H(b)), the geometric mean that the DeepCluster papers use; 0 to 1.

    Caron et al. 2018, equation 7. Names of clusters do not matter. Rows that are -1 in either are left out. Where one
    of the two has a single cluster it is 0, where both have it is 1, as in scikit-learn.
    """
    a, b = _both_labelled(a, b)
    if not len(a):
        return float("nan")
    entropy_a, entropy_b = _entropy_of(a), _entropy_of(b)
    if entropy_a == 0 and entropy_b == 0:
        return 1.0
    # only pairs that occur, never the table of all: at K = 30,000 that has 7 GB
    information = entropy_a + entropy_b - _entropy_of(a * (int(b.max()) + 1) + b)
    scale = math.sqrt(entropy_a * entropy_b)
    return min(1.0, max(0.0, information / scale)) if scale > 0 else 0.0


def adjusted_mutual_info(a: Int[Tensor, "N"], b: Int[Tensor, "N"]) -> float:
    """Mutual information above chance, by scikit-learn; 0 for random labels of any sizes."""
    from sklearn.metrics import adjusted_mutual_info_score

    a, b = _both_labelled(a, b)
    return float(adjusted_mutual_info_score(a.numpy(), b.numpy(), average_method="geometric"))


def reassigned(previous: Int[Tensor, "N"], current: Int[Tensor, "N"]) -> float:
    """Share of rows that changed cluster, after the best matching of names (Hungarian); NaN above 2,000 clusters."""
    from scipy.optimize import linear_sum_assignment

    previous, current = _both_labelled(previous, current)
    if not len(previous) or max(len(previous.unique()), len(current.unique())) > MOST_MATCHED:
        return float("nan")
    counts = _contingency(previous, current)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return 1.0 - float(counts[rows, columns].sum() / counts.sum())


def size_metrics(sizes: Int[Tensor, "K"]) -> dict[str, float]:
    """Empty clusters, largest share, entropy as a share of ln K, and imbalance K sum(n^2) / N^2 (1 when equal)."""
    k, total = len(sizes), max(int(sizes.sum()), 1)
    shares = sizes.double() / total
    return {
        "empty": float((sizes == 0).sum()),
        "largest_share": float(shares.max()),
        "entropy": _entropy(shares) / math.log(k) if k > 1 else 0.0,
        "imbalance": float(k * shares.square().sum()),
    }


def purity(assigned: Int[Tensor, "N"], labels: Int[Tensor, "N"], k: int) -> Float[Tensor, "K"]:
    """Share of each cluster's labelled rows that have its commonest label; NaN for a cluster without labelled rows.

    What it is to be compared with is the share of the commonest label among all rows: the purity of one big cluster.
    Rows that are -1 in either are left out.

    Args:
        assigned: Cluster of each row.
        labels: Class of each row.
        k: Number of clusters, empty ones included.
    """
    assigned, labels = _both_labelled(assigned, labels)
    classes = int(labels.max()) + 1 if len(labels) else 1
    pairs, counts = torch.unique(assigned * classes + labels, return_counts=True)  # never the whole K x C table
    clusters = pairs // classes
    commonest = torch.zeros(k, dtype=torch.int64).scatter_reduce(0, clusters, counts, "amax")
    return commonest / assigned.bincount(minlength=k)


def distances_to_means(features: Float[Tensor, "N D"], assigned: Int[Tensor, "N"], k: int) -> Float[Tensor, "N"]:
    """Euclidean distance of each row to the mean of its cluster; NaN for a row without a cluster.

    For clusters whose centroids were not kept: these are means of the features as given.

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
    """All numbers of one clustering, by the names that stand after `cluster/`.

    Args:
        sizes: Rows of each cluster.
        labels: Cluster of each row, -1 where it has none.
        previous: Clusters of the last time; adds `nmi_previous` and `reassigned`.
        true_labels: The images' own classes; adds `nmi_labels`, `ami_labels` and, for comparison, `nmi_chance`, the
            NMI of clusters of the same sizes that were filled at random: it rises with K.
        objective: Of a `Clustering`, the sum of distances in each iteration; adds `objective`, the last one divided by
            the clustered rows, so that it compares over numbers of images: the mean squared distance of a row to its
            centroid (cosine metric: 1 - cos).
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
    """The same labels on other rows, always the same ones."""
    labels = labels.cpu()
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


def _both_labelled(a: Int[Tensor, "N"], b: Int[Tensor, "N"]) -> tuple[Int[Tensor, "M"], Int[Tensor, "M"]]:
    a, b = a.cpu().long(), b.cpu().long()
    known = (a != UNLABELLED) & (b != UNLABELLED)
    return a[known], b[known]


def _contingency(a: Int[Tensor, "M"], b: Int[Tensor, "M"]) -> Float[Tensor, "R C"]:
    """How often each pair of used clusters occurs."""
    names_a, a = torch.unique(a, return_inverse=True)
    names_b, b = torch.unique(b, return_inverse=True)
    pairs = torch.bincount(a * len(names_b) + b, minlength=len(names_a) * len(names_b))
    return pairs.view(len(names_a), len(names_b)).double()


def _entropy_of(labels: Int[Tensor, "M"]) -> float:
    """In nats."""
    return _entropy(labels.unique(return_counts=True)[1].double() / len(labels))


def _entropy(shares: Float[Tensor, "K"]) -> float:
    return float(torch.special.entr(shares).sum())
