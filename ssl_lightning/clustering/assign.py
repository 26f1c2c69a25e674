"""Assignment of rows to their nearest centroid, the expensive step of k-means."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.products import products, rounded_factors

CPU_SCORES = 1 << 20
"""Scores in memory at a time on the CPU: 4 MB, which stays in the cache between the product and the search."""
DEVICE_SCORES = 1 << 28
"""Scores in memory at a time on other devices: 1 GB."""


def nearest(
    features: Float[Tensor, "N D"], centroids: Float[Tensor, "K D"], cosine: bool, fast: bool = False
) -> Int[Tensor, "N"]:
    """The nearest centroid of each row: the largest x.c - |c|^2 / 2 (cosine: x.c). The first of equal scores wins.

    Args:
        features: Rows; of unit length for cosine.
        centroids: Centroids; of unit length for cosine.
        cosine: Whether to compare by cosine similarity.
        fast: Allow CPUs with bfloat16 matrix units to round the factors, but not the sums. This is 2.5 times as fast
            there and can change near-ties only (0.1 % of a squared distance).
    """
    bias = torch.zeros(len(centroids), device=features.device) if cosine else -0.5 * centroids.square().sum(1)
    cpu = features.device.type == "cpu"
    size = max(1, (CPU_SCORES if cpu else DEVICE_SCORES) // len(centroids))
    score, search = products(centroids, bias), _search_on_cpu if cpu else _search
    labels = torch.empty(len(features), dtype=torch.int64, device=features.device)
    with rounded_factors(fast and cpu):
        for start in range(0, len(features), size):
            block = slice(start, start + size)
            labels[block] = search(score(features[block]))
    return labels


def _search(scores: Float[Tensor, "n K"]) -> Int[Tensor, "n"]:
    return scores.argmax(1)


def _search_on_cpu(scores: Float[Tensor, "n K"]) -> Int[Tensor, "n"]:
    """Argmax by NumPy, which is four times as fast as torch's for a row of floats."""
    return torch.from_numpy(scores.numpy().argmax(1))
