"""Members of clusters in the order of their distances."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def place_in_cluster(labels: Int[Tensor, "N"], keys: Float[Tensor, "N"] | Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """The place of each row among the rows of its cluster by ascending keys, from 0; the first of equal keys first.

    Args:
        labels: Cluster of each row, from 0.
        keys: What the rows of a cluster are sorted by, such as distances.
    """
    by_key = keys.argsort(stable=True)
    order = by_key[labels[by_key].argsort(stable=True)]
    sizes = labels.bincount()
    starts = sizes.cumsum(0) - sizes
    places = torch.empty_like(labels)
    places[order] = torch.arange(len(labels), device=labels.device) - starts[labels[order]]
    return places
