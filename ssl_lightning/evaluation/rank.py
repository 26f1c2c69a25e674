"""Quality of features without labels: effective rank and spread."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

ROWS = 10_000
"""Rows that are looked at; more change the third digit."""


def rank_me(features: Float[Tensor, "N D"]) -> float:
    """Effective rank: exp of the entropy of the normalized singular values, 1 to min(N, D).

    Garrido et al. 2023 (arXiv 2210.02885), equation 1. All-zero features give 0.
    """
    singular = torch.linalg.svdvals(features[:ROWS].double())
    total = singular.sum()
    if total == 0:
        return 0.0
    shares = singular / total
    return float(torch.special.entr(shares).sum().exp())


def feature_std(features: Float[Tensor, "N D"]) -> float:
    """Mean standard deviation of the dimensions of unit rows times sqrt(D): 1 when spread evenly, 0 when collapsed."""
    unit = F.normalize(features.float(), dim=1)
    return float(unit.std(0, correction=0).mean() * features.shape[1] ** 0.5)


def participation_ratio(features: Float[Tensor, "N D"]) -> float:
    """Along how many directions unit rows differ: 1 when they lie on one line, D when spread evenly.

    (sum of the eigenvalues of their covariance)^2 / (sum of the squared eigenvalues). Without a decomposition, so that
    a training step can spare it. Equal rows give 0.
    """
    unit = F.normalize(features.float(), dim=1)
    centered = unit - unit.mean(0)
    wide = unit.shape[0] < unit.shape[1]
    product = centered @ centered.T if wide else centered.T @ centered  # both have the same eigenvalues, but for zeros
    squares = product.square().sum()
    return float(product.diagonal().sum().square() / squares) if squares > 0 else 0.0
