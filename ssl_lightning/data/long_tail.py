"""A long-tailed selection of a labeled dataset, as in CIFAR-10-LT: class sizes that decrease exponentially."""

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.members import place_in_cluster
from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.errors import DataError
from ssl_lightning.types import UNLABELLED

SEED = 0
"""Seed of the selection, which does not depend on the seed of a run: all runs have the same images."""


def long_tailed_rows(labels: Int[Tensor, "N"], imbalance: float) -> Int[Tensor, "M"]:
    """Rows of which class j of C has floor(n * imbalance^(-j / (C - 1))), where n is the size of the largest class.

    Cui et al. 2019 (arXiv 1901.05555), section 5.1, and Cao et al. 2019 (LDAM, arXiv 1906.07413). Classes are in the
    order of the class list; a class with fewer images has all of them. The rows of a class are chosen at random, and
    those of a larger imbalance are among those of a smaller one.

    Args:
        labels: Class of each row; rows without one are left out.
        imbalance: Size of the first class divided by that of the last one, at least 1.

    Returns:
        Rows, ascending.

    Raises:
        DataError: For fewer than two classes.
    """
    members = (labels != UNLABELLED).nonzero().flatten()
    present, own, counts = labels[members].unique(return_inverse=True, return_counts=True)
    if len(present) < 2:
        raise DataError(
            f"found {len(members)} images of {len(present)} classes for data.imbalance={imbalance:g}; expected at "
            "least two classes: leave it out, or name a labeled split"
        )
    fractions = [(1 / imbalance) ** (place / (len(present) - 1)) for place in range(len(present))]
    sizes = torch.tensor([max(1, int(int(counts.max()) * fraction)) for fraction in fractions])
    order = permutation(SEED, Purpose.LONG_TAIL, 0, len(labels)).argsort()
    return members[place_in_cluster(own, order[members]) < sizes[own]]
