"""Balanced codes from scores by optimal transport: Sinkhorn-Knopp with finite results (SwAV, algorithm 1)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.distributed import ProcessGroup

LARGEST_LOSS = 1e-6
"""Largest error of a row of codes by underflow; above it the computation is repeated in the log domain."""


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "B K"],
    epsilon: float = 0.05,
    iterations: int = 3,
    prior: Float[Tensor, "_K"] | None = None,
    group: ProcessGroup | None = None,
) -> Float[Tensor, "B K"]:
    """Soft assignments close to exp(scores / epsilon) in which every prototype receives its share of the batch.

    Equations 3 to 5 of Caron et al. 2020 (SwAV, arXiv 2006.09882). Each iteration scales every prototype to its share,
    then every image to 1. Rows of the result therefore sum to 1, and the shares are approached with more iterations.

    The matrix is never rewritten: with A = exp((scores - the largest score of each prototype) / epsilon) the codes are
    u_i A_ik v_k, and an iteration updates u and v by two matrix-vector products. The largest scores cancel in the first
    iteration, so that nothing overflows. The loss of A by underflow is bounded by the product of the largest u and v.
    If it could matter, the iterations are repeated on logarithms in float64.

    Args:
        scores: Products of embeddings and prototypes, of any precision.
        epsilon: Strength of the entropy regularization; smaller values give harder codes.
        iterations: Number of iterations; 3 in the paper.
        prior: Share of each prototype: positive weights of any sum. None for equal shares.
        group: None if these are all the rows. With a group, each process passes its rows and receives their codes.

    Returns:
        Codes without gradient, float64 for float64 and float32 otherwise; finite for all finite scores, else NaN.

    Raises:
        ValueError: If epsilon or a share is not positive, iterations is below 1, or the prior has not K entries.
    """
    if epsilon <= 0 or iterations < 1:
        raise ValueError(f"found epsilon={epsilon}, iterations={iterations}; expected more than 0, and at least 1")
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores.to(dtype)
        shares = _shares(prior, scores)
        largest = _over_rows(scores, group)  # [K]
        # one fused pass; the rounding error of -largest / epsilon is a factor of its prototype, which v cancels
        matrix = torch.add(-largest / epsilon, scores, alpha=1 / epsilon).exp_()  # [B, K]
        u = torch.ones(len(scores), dtype=dtype, device=scores.device)
        v = shares
        for _ in range(iterations):
            v = shares / _sum(u @ matrix, group)
            u = 1 / (matrix @ v)
        if _is_exact(u, v, group):
            return matrix.mul_(v).mul_(u.unsqueeze(1))
        return _on_logarithms(scores, largest, epsilon, iterations, shares, group).to(dtype)


def _shares(prior: Float[Tensor, "_K"] | None, scores: Float[Tensor, "B K"]) -> Float[Tensor, "K"]:
    k = scores.shape[1]
    if prior is None:
        return scores.new_full((k,), 1 / k)
    if prior.shape != (k,) or not bool((prior > 0).all()):
        raise ValueError(f"found a prior of shape {tuple(prior.shape)}; expected {k} positive shares, one a prototype")
    prior = prior.to(scores)
    return prior / prior.sum()


def _is_exact(u: Float[Tensor, "B"], v: Float[Tensor, "K"], group: ProcessGroup | None) -> bool:
    """Whether underflow in the matrix is negligible on all processes; the only synchronization with a GPU."""
    smallest = torch.finfo(u.dtype).tiny
    loss = u.amax() * v.amax() * (smallest * len(v)) if len(u) else v.amax() * smallest
    # the comparison must be false for NaN
    flag = (~(loss <= LARGEST_LOSS)).to(torch.int32)
    if group is not None:
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=group)
    return not bool(flag)


def _on_logarithms(
    scores: Float[Tensor, "B K"],
    largest: Float[Tensor, "K"],
    epsilon: float,
    iterations: int,
    shares: Float[Tensor, "K"],
    group: ProcessGroup | None,
) -> Float[Tensor, "B K"]:
    """The same iterations on logarithms in float64, about ten times slower, for scores far outside -1..1."""
    exponents = (scores.double() - largest.double()) / epsilon
    u = exponents.new_zeros(len(scores), 1)
    v = shares.double().log()
    for _ in range(iterations):
        weighted = exponents + u
        top = _over_rows(weighted, group)
        v = shares.double().log() - top - _sum((weighted - top).exp().sum(0), group).log()
        u = -(exponents + v).logsumexp(1, keepdim=True)
    return (exponents + v).softmax(1)  # equals the scaling by u, and rounding cannot make it overflow


def _over_rows(values: Float[Tensor, "B K"], group: ProcessGroup | None) -> Float[Tensor, "K"]:
    """The maximum of each column over all processes; a process may have no rows."""
    largest = values.amax(0) if len(values) else values.new_full((values.shape[1],), -torch.inf)
    if group is not None:
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    return largest


def _sum(values: Float[Tensor, "K"], group: ProcessGroup | None) -> Float[Tensor, "K"]:
    if group is not None:
        dist.all_reduce(values, group=group)
    return values
