"""The Local Aggregation loss: close neighbors against background neighbors."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Neighbors(NamedTuple):
    """The background neighbors of some images, and which of them are close neighbors.

    Attributes:
        rows: Rows of the memory bank: first the image's own, then its k nearest.
        background: False where the image's own row appears again among its k nearest.
        close: True for background neighbors that share a cluster with the image in at least one clustering, and for the
            image's own row.
    """

    rows: Int[Tensor, "B 1+k"]
    background: Bool[Tensor, "B 1+k"]
    close: Bool[Tensor, "B 1+k"]


def local_aggregation_loss(
    z: Float[Tensor, "B D"],
    index: Int[Tensor, "B"],
    bank: Float[Tensor, "N D"],
    labels: Int[Tensor, "N H"],
    num_neighbors: int,
    temperature: float,
) -> Float[Tensor, ""]:
    """Negative log-probability of close neighbors among background neighbors: -mean_i log( P(C_i and B_i) / P(B_i) ).

    Equation 4 of Zhuang, Zhai, Yamins 2019 (arXiv 1903.12355). B_i are the k rows nearest to z_i, C_i the rows that
    share a cluster with row i in any of the H clusterings, and P(A) is the sum of exp(z_i M_j / tau) over j in A; the
    partition function cancels. The loss is computed in float32. Gradients flow through z only.

    Note:
        The image's own row is always in both sets. In public code it can be missing from the k nearest; the loss is
        then capped by the 1e-7 that is added inside the logarithm and has no gradient there.

    Args:
        z: Unit embeddings.
        index: Row of each image in the memory bank.
        bank: Unit rows.
        labels: Cluster of each row in each clustering; -1 shares a cluster with no other row.
        num_neighbors: k.
        temperature: tau.

    Returns:
        A scalar: 0 if all rows share one cluster, at most `instance_loss`.

    Raises:
        ValueError: If the temperature is not positive, or k is not within 1..N.
    """
    if temperature <= 0:
        raise ValueError(f"found temperature={temperature}; expected a positive number")
    with torch.autocast(z.device.type, enabled=False):
        scores = z.float() @ bank.detach().float().T / temperature
        found = neighbors(scores.detach(), index, labels, num_neighbors)
        nearest = scores.gather(1, found.rows)
        return (_log_sum(nearest, found.background) - _log_sum(nearest, found.close)).mean()


@torch.no_grad()
def neighbors(
    scores: Float[Tensor, "B N"], index: Int[Tensor, "B"], labels: Int[Tensor, "N H"], num_neighbors: int
) -> Neighbors:
    """Background and close neighbors of some images, from their scores with all rows of the memory bank.

    Args:
        scores: Similarity of each image to each row.
        index: Row of each image in the memory bank.
        labels: Cluster of each row in each clustering; -1 shares a cluster with no other row.
        num_neighbors: k.

    Raises:
        ValueError: If k is not within 1..N.
    """
    if not 1 <= num_neighbors <= scores.shape[1]:
        raise ValueError(f"found num_neighbors={num_neighbors} for {scores.shape[1]} images; expected 1 to as many")
    own = index.unsqueeze(1)
    nearest = scores.topk(num_neighbors, dim=1, sorted=False).indices  # [B, k]
    close = torch.zeros_like(nearest, dtype=torch.bool)
    for head in labels.T.contiguous():  # [N] each: H passes over [B, k] hold a third of what one over [B, k, H] does
        mine = head[own]  # [B, 1]
        close |= (head[nearest] == mine) & (mine >= 0)
    others = nearest != own
    always = torch.ones_like(own, dtype=torch.bool)
    return Neighbors(
        torch.cat([own, nearest], dim=1), torch.cat([always, others], dim=1), torch.cat([always, close & others], dim=1)
    )


def _log_sum(scores: Float[Tensor, "B n"], members: Bool[Tensor, "B n"]) -> Float[Tensor, "B"]:
    return scores.masked_fill(~members, -torch.inf).logsumexp(dim=1)
