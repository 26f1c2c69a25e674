"""Every image is a class of its own: an embedding, the memory of all images, and how well it finds itself [IR]."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def instance_loss(
    z: Float[Tensor, "B D"], index: Int[Tensor, "B"], bank: Float[Tensor, "N D"], temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of finding one's own row among all N: -mean_i log( exp(z_i M_i / tau) / sum_j exp(z_i M_j / tau) ).

    Equation 2 of Wu et al. 2018 (arXiv 1805.01978) over the whole memory, without sampling; in float32 whatever the
    precision of the embeddings. Gradients flow through z alone.

    Args:
        z: Unit embeddings.
        index: Row of each in the memory.
        bank: Unit rows.
        temperature: tau.

    Returns:
        A scalar; ln N for an embedding that is equally near to all rows.

    Raises:
        ValueError: If the temperature is not positive.
    """
    _expect_positive(temperature)
    with torch.autocast(z.device.type, enabled=False):
        return F.cross_entropy(z.float() @ bank.detach().float().T / temperature, index)


def nce_loss(
    z: Float[Tensor, "B D"],
    index: Int[Tensor, "B"],
    negatives: Int[Tensor, "B m"],
    bank: Float[Tensor, "N D"],
    temperature: float,
    partition: float,
) -> Float[Tensor, ""]:
    """Noise-contrastive estimate of `instance_loss` for memories too long to compare with: m rows drawn for an image.

    Equations 5 to 7 of Wu et al. 2018: with p_j = exp(z M_j / tau) / Z and q = m / N,
    -mean_i [ log(p_i / (p_i + q)) + sum_j log(q / (p_j + q)) ].

    Note:
        Computed from differences of logarithms, so without the 1e-7 that public code adds to the denominators. As
        there, a draw may hit the image itself.

    Args:
        z: Unit embeddings.
        index: Row of each in the memory.
        negatives: Rows drawn from the whole memory, for each image its own.
        bank: Unit rows.
        temperature: tau.
        partition: Z, from `estimate_partition`: it depends on tau and D.

    Returns:
        A scalar.

    Raises:
        ValueError: If the temperature or Z is not positive.
    """
    _expect_positive(temperature)
    if partition <= 0:
        raise ValueError(f"found partition={partition}; expected a positive number, as estimate_partition gives")
    with torch.autocast(z.device.type, enabled=False):
        rows = torch.cat([index.unsqueeze(1), negatives], dim=1)  # [B, 1 + m], the own row first
        chosen = bank.detach().float()[rows]  # [B, 1 + m, D]
        log_p = torch.einsum("bd,bmd->bm", z.float(), chosen) / temperature - math.log(partition)
        log_odds = log_p - math.log(negatives.shape[1] / len(bank))  # log(p / q)
        return -(F.logsigmoid(log_odds[:, 0]) + F.logsigmoid(-log_odds[:, 1:]).sum(1)).mean()


@torch.no_grad()
def estimate_partition(z: Float[Tensor, "B D"], bank: Float[Tensor, "N D"], temperature: float) -> Float[Tensor, ""]:
    """Z: the sum of exp(z M_j / tau) over all rows, averaged over the embeddings of a batch.

    Wu et al. 2018, section 3.2, take it from the first batch and keep it. For random unit vectors it is near
    N exp(1 / (2 D tau^2)); public code has that number for D=128 and tau=0.07 written in, which is wrong elsewhere.
    """
    with torch.autocast(z.device.type, enabled=False):
        logs = torch.logsumexp(z.float() @ bank.float().T / temperature, dim=1)
        return logs.exp().mean()


def _expect_positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"found temperature={temperature}; expected a positive number")
