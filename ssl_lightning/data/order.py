"""Who comes when: the order of an epoch as a pure function of (seed, epoch), and of the labels when it is balanced."""

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.counter_rng import Purpose, bits, permutation
from ssl_lightning.types import UNLABELLED


def epoch_order(seed: int, epoch: int, num_samples: int) -> Int[Tensor, "N"]:
    """Every row once, in random order."""
    return permutation(seed, Purpose.ORDER, epoch, num_samples)


def balanced_order(seed: int, epoch: int, labels: Int[Tensor, "N"], num_random: int) -> Int[Tensor, "M"]:
    """Rows drawn uniformly over the clusters that have members (DeepCluster, section 3.2, "trivial parametrization").

    Each of the K' non-empty clusters gives floor(M / K') + 1 draws; all draws are shuffled and cut to M.

    Args:
        seed: Of the run.
        epoch: Counted from zero.
        labels: Cluster of each row; rows with -1 are never drawn.
        num_random: M, as a rule the number of rows.

    Returns:
        Rows of `labels`, not positions in a list sorted by cluster: `labels[row]` is the row's own cluster.

    Raises:
        ValueError: No row has a cluster.

    Note:
        A cluster smaller than its quota is gone through in whole random rounds, so each member comes before any comes
        again; drawing with replacement, as the paper's authors did, would leave some members out.
    """
    members = (labels != UNLABELLED).nonzero().flatten()
    if len(members) == 0:
        raise ValueError(
            f"all {len(labels)} labels are {UNLABELLED}: a balanced order needs at least one cluster with a member"
        )
    shuffled = members[bits(seed, Purpose.BALANCE, epoch, members).argsort(stable=True)]
    by_cluster = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels[members].unique(return_counts=True)[1]  # [K']
    starts = sizes.cumsum(0) - sizes
    quota = num_random // len(sizes) + 1
    places = starts.unsqueeze(1) + torch.arange(quota) % sizes.unsqueeze(1)  # [K', quota]
    drawn = by_cluster[places.flatten()]
    # view=1: with the numbers that shuffled the members, the two orders would depend on each other
    mixed = bits(seed, Purpose.BALANCE, epoch, torch.arange(len(drawn)), view=1).argsort(stable=True)
    return drawn[mixed[:num_random]]
