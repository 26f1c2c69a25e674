"""The nearest centroid of every row: the one expensive step of k-means."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.products import products, rounded_factors

CPU_SCORES = 1 << 20
"""Scores held at once on the CPU: 4 MB, which stays in the cache between the product and the search."""
DEVICE_SCORES = 1 << 28
"""Scores held at once elsewhere: 1 GB."""


def nearest(
    features: Float[Tensor, "N D"], centroids: Float[Tensor, "K D"], cosine: bool, fast: bool = False
) -> Int[Tensor, "N"]:
    """The nearest centroid of each row: the largest x.c - |c|^2 / 2 (cosine: x.c). Of equals the first counts.

    Args:
        features: Rows; of unit length for cosine.
        centroids: The same.
        cosine: Which product.
        fast: Let CPUs that have bfloat16 matrix units round the factors, not the sums; 2.5 times faster there, and
            only near-ties (0.1 % of a squared distance) can fall to the other side.
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
    """NumPy's argmax runs through a row of floats four times faster than torch's, which carries the index along."""
    return torch.from_numpy(scores.numpy().argmax(1))
