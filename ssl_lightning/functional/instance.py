"""Losses of instance recognition: each image is a class, compared with a memory bank of all images."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def instance_loss(
    z: Float[Tensor, "B D"], index: Int[Tensor, "B"], bank: Float[Tensor, "N D"], temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of the image's own row among all N: -mean_i log( exp(z_i M_i / tau) / sum_j exp(z_i M_j / tau) ).

    Equation 2 of Wu et al. 2018 (arXiv 1805.01978) over the whole memory bank, without sampling. The loss is computed
    in float32. Gradients flow through z only.

    Args:
        z: Unit embeddings.
        index: Row of each image in the memory bank.
        bank: Unit rows.
        temperature: tau.

    Returns:
        A scalar; ln N for an embedding that is equally similar to all rows.

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
    """Noise-contrastive estimate of `instance_loss` for large memory banks, with m sampled rows per image.

    Equations 5 to 7 of Wu et al. 2018: with p_j = exp(z M_j / tau) / Z and q = m / N,
    -mean_i [ log(p_i / (p_i + q)) + sum_j log(q / (p_j + q)) ].

    Note:
        The loss is computed from differences of logarithms, without the 1e-7 that public code adds to the denominators.
        As in that code, a sampled row can be the image's own.

    Args:
        z: Unit embeddings.
        index: Row of each image in the memory bank.
        negatives: Rows sampled from the whole memory bank, separately for each image.
        bank: Unit rows.
        temperature: tau.
        partition: Z, from `estimate_partition`; it depends on tau and D.

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

    Wu et al. 2018, section 3.2, compute it on the first batch and keep it. For random unit vectors it is close to
    N exp(1 / (2 D tau^2)). Public code contains this number for D=128 and tau=0.07, which is wrong for other values.
    """
    with torch.autocast(z.device.type, enabled=False):
        logs = torch.logsumexp(z.float() @ bank.float().T / temperature, dim=1)
        return logs.exp().mean()


def _expect_positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"found temperature={temperature}; expected a positive number")
