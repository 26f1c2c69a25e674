"""Similarity of two representations of the same images: linear CKA, and shared nearest neighbors."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.evaluation.knn import nearest_rows


def linear_cka(a: Float[Tensor, "N A"], b: Float[Tensor, "N B"]) -> float:
    """Linear centered kernel alignment, 0 to 1; 1 for features that are equal up to rotation, scale and shift.

    Kornblith et al. 2019 (arXiv 1905.00414), section 3. NaN where all rows of one side are equal.

    Args:
        a: Features of one network.
        b: Features of another one for the same images, of any width.
    """
    a, b = (features.double() - features.double().mean(0) for features in (a, b))
    own = (a.T @ a).norm() * (b.T @ b).norm()
    return float((a.T @ b).norm().square() / own) if own > 0 else float("nan")


def shared_neighbors(a: Float[Tensor, "N A"], b: Float[Tensor, "N B"], k: int = 10) -> float:
    """Mean share of the k nearest neighbors of an image that are the same by both representations.

    Neighbors are those of the highest cosine similarity. Unrelated representations share k / (N - 1).

    Args:
        a: Features of one network.
        b: Features of another one for the same images, of any width.
        k: Neighbors of each image.
    """
    rows = torch.arange(len(a))
    near, other = nearest_rows(a, rows, k), nearest_rows(b, rows, k)
    return float((near.unsqueeze(2) == other.unsqueeze(1)).any(2).double().mean())
