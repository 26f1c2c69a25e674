"""The SimCLR loss: normalized, temperature-scaled cross-entropy (NT-Xent)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from ssl_lightning.processes import gather_rows_with_gradient


def nt_xent_loss(
    z1: Float[Tensor, "B D"], z2: Float[Tensor, "B D"], temperature: float, group: dist.ProcessGroup | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy of the other view of an image among the views of all images, excluding the view itself.

    Equation 1 and algorithm 1 of Chen et al. 2020 (SimCLR, arXiv 2002.05709): for each of the 2B views a with partner
    p, -log( exp(cos(z_a, z_p) / tau) / sum_{b != a} exp(cos(z_a, z_b) / tau) ), averaged over a. The loss is computed
    in float32. With a group, the sum runs over the views of all processes and the mean over those of this process.
    Gradients flow back from every process: the mean of the losses of processes with equally many rows has the gradient
    of one process with all rows.

    Args:
        z1: Embeddings of the first view, of any norm.
        z2: Embeddings of the second view, in the same order.
        temperature: tau.
        group: None if these are all the rows.

    Returns:
        A scalar; ln(2B - 1) if all embeddings are equal.

    Raises:
        ValueError: If the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"found temperature={temperature}; expected a positive number")
    with torch.autocast(z1.device.type, enabled=False):
        pairs = F.normalize(torch.stack([z1, z2], dim=1).float(), dim=2)  # [B, 2, D]
        every, start = gather_rows_with_gradient(pairs, group)  # [B of all, 2, D]
        scores = pairs.flatten(0, 1) @ every.flatten(0, 1).T / temperature  # [2B, 2B of all]
        itself = 2 * start + torch.arange(len(scores), device=scores.device)
        scores = scores.scatter(1, itself.unsqueeze(1), -torch.inf)
        return F.cross_entropy(scores, itself ^ 1)  # views 2i and 2i + 1 are partners
