"""The MoCLR loss: contrastive loss between an online network and a momentum network."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from ssl_lightning.processes import gather_rows_with_gradient


def moclr_loss(
    q1: Float[Tensor, "B D"],
    q2: Float[Tensor, "B D"],
    k1: Float[Tensor, "B D"],
    k2: Float[Tensor, "B D"],
    temperature: float,
    group: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the momentum embedding of the other view of an image among those of all images.

    Equation 1 of Tian, Henaff, van den Oord 2021 (Divide and Contrast, arXiv 2105.08054), summed over both directions:
    for q of one view and k of the other, -mean_i log( exp(cos(q_i, k_i) / tau) / sum_j exp(cos(q_i, k_j) / tau) ). The
    negatives are the momentum embeddings of the B - 1 other images. The loss is computed in float32. k receives no
    gradient. With a group, the sum runs over the images of all processes and the mean over those of this process.

    Args:
        q1: Online embeddings of the first view, of any norm.
        q2: Online embeddings of the second view.
        k1: Momentum embeddings of the first view.
        k2: Momentum embeddings of the second view.
        temperature: tau.
        group: None if these are all the rows.

    Returns:
        A scalar; 2 ln B if all embeddings are equal.

    Raises:
        ValueError: If the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"found temperature={temperature}; expected a positive number")
    with torch.autocast(q1.device.type, enabled=False):
        keys = F.normalize(torch.stack([k1, k2], dim=1).detach().float(), dim=2)  # [B, 2, D]
        every, start = gather_rows_with_gradient(keys, group)  # [B of all, 2, D]
        own = start + torch.arange(len(q1), device=q1.device)
        directions = ((q1, every[:, 1]), (q2, every[:, 0]))  # each view is compared with the other one
        losses = [F.cross_entropy(F.normalize(q.float(), dim=1) @ k.T / temperature, own) for q, k in directions]
        return losses[0] + losses[1]
