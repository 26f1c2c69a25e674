"""Metrics of features without labels: effective rank and standard deviation."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.clustering.rows import unit_rows
from ssl_lightning.decompositions import singular_values

ROWS = 10_000
"""Number of rows used; more rows change the third digit."""


def rank_me(features: Float[Tensor, "N D"]) -> float:
    """Effective rank: exp of the entropy of the normalized singular values, between 1 and min(N, D).

    Garrido et al. 2023 (arXiv 2210.02885), equation 1. Features of zeros give 0,
    equal rows give 1.
    """
    singular = singular_values(features[:ROWS].double())
    total = singular.sum()
    if total == 0:
        return 0.0
    shares = singular / total
    return float(torch.special.entr(shares).sum().exp())


def feature_std(features: Float[Tensor, "N D"]) -> float:
    """Mean standard deviation of the dimensions of unit rows times sqrt(D): 1 if isotropic, 0 if collapsed."""
    unit = unit_rows(features.float())
    return float(unit.std(0, correction=0).mean() * features.shape[1] ** 0.5)


def participation_ratio(features: Float[Tensor, "N D"]) -> float:
    """Number of directions in which unit rows vary: 1 if they lie on one line, D if they are isotropic.

    It is (sum of the eigenvalues of their covariance)^2 / (sum of the squared eigenvalues), computed without a
    decomposition, which a training step could not afford. Equal rows give 0.
    """
    unit = unit_rows(features.float())
    centered = unit - unit.mean(0)
    wide = unit.shape[0] < unit.shape[1]
    product = centered @ centered.T if wide else centered.T @ centered  # both have the same nonzero eigenvalues
    squares = product.square().sum()
    return float(product.diagonal().sum().square() / squares) if squares > 0 else 0.0
