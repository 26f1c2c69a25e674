"""The nearest centroid of every row: the one expensive step of k-means."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    score, search = _score(features, centroids, bias), _search_on_cpu if cpu else _search
    labels = torch.empty(len(features), dtype=torch.int64, device=features.device)
    with _rounded_factors(fast and cpu):
        for start in range(0, len(features), size):
            block = slice(start, start + size)
            labels[block] = search(score(features[block]))
    return labels


def _score(
    features: Float[Tensor, "N D"], centroids: Float[Tensor, "K D"], bias: Float[Tensor, "K"]
) -> Callable[[Tensor], Tensor]:
    """Rows to their scores. Where MKL takes its slow path (AMD), oneDNN is up to twice as fast and equally exact."""
    if features.device.type == "cpu" and _has_onednn():
        return lambda block: torch.ops.mkldnn._linear_pointwise(block, centroids, bias, "none", [], "")
    transposed = centroids.T.contiguous()
    return lambda block: torch.addmm(bias, block, transposed)


def _has_onednn() -> bool:
    """The operator is private, so its absence must do no harm."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@contextmanager
def _rounded_factors(allowed: bool) -> Iterator[None]:
    """OneDNN may take bfloat16 products with float32 sums, here and nowhere else in the process."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made at run time
    before = matmul.fp32_precision
    if allowed:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _search(scores: Float[Tensor, "n K"]) -> Int[Tensor, "n"]:
    return scores.argmax(1)


def _search_on_cpu(scores: Float[Tensor, "n K"]) -> Int[Tensor, "n"]:
    """NumPy's argmax runs through a row of floats four times faster than torch's, which carries the index along."""
    return torch.from_numpy(scores.numpy().argmax(1))
