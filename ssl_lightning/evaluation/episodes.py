"""Classifiers of few-shot episodes, for all episodes at once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

EPISODES_AT_ONCE = 50
"""Episodes with features in memory at a time; 10 MB for 5-way 5-shot episodes, 15 queries and 512 features."""
STEPS = 300
TOLERANCE = 1e-4
"""The logistic solver stops when no dual weight, which is within -1..1, changes by more than this."""


def inner_products(
    features: Float[Tensor, "N D"], rows: Int[Tensor, "E W S"], shots: int
) -> tuple[Float[Tensor, "E n n"], Float[Tensor, "E Q n"]]:
    """Inner products of each episode: of the shots with each other, and of the queries with the shots.

    Args:
        features: Features of the whole split.
        rows: Rows of each episode and class, first the shots, then the queries.
        shots: Number of shots S per class. In the result, n = ways x S, class by class, and Q = ways x queries.
    """
    kernels, crosses = [], []
    for block in rows.to(features.device).split(EPISODES_AT_ONCE):
        images = features[block]
        known, queries = images[:, :, :shots].flatten(1, 2), images[:, :, shots:].flatten(1, 2)
        kernels.append(known @ known.transpose(1, 2))
        crosses.append(queries @ known.transpose(1, 2))
    return torch.cat(kernels), torch.cat(crosses)


def mean_scores(kernel: Float[Tensor, "E n n"], queries: Float[Tensor, "E Q n"], ways: int) -> Float[Tensor, "E Q W"]:
    """Scores of each query: negative squared distance to the mean of each class's shots, up to a constant per query."""
    to_means = queries.unflatten(2, (ways, -1)).mean(3)  # [E, Q, W]
    blocks = kernel.unflatten(2, (ways, -1)).unflatten(1, (ways, -1))  # [E, W, S, W, S]
    norms = blocks.mean((2, 4)).diagonal(dim1=1, dim2=2)  # [E, W]
    return 2 * to_means - norms.unsqueeze(1)


def logistic_scores(
    kernel: Float[Tensor, "E n n"], queries: Float[Tensor, "E Q n"], ways: int
) -> Float[Tensor, "E Q W"]:
    """Logits of multinomial logistic regression on the shots: sum of cross-entropies plus |weights|^2 / 2, free biases.

    The problem is solved in the dual. The weights are a combination of the shots, weights = shots^T A, and the gradient
    is zero where A = Y - P with P the probabilities at A. For features of hundreds of dimensions and few shots this
    takes only small matrices. The mean shot is subtracted first; the biases compensate for it and the problem is better
    conditioned.
    """
    queries = queries - queries.mean(2, keepdim=True) - kernel.mean(1, keepdim=True) + kernel.mean((1, 2), keepdim=True)
    kernel = kernel - kernel.mean(2, keepdim=True) - kernel.mean(1, keepdim=True) + kernel.mean((1, 2), keepdim=True)
    targets = torch.eye(ways, device=kernel.device).repeat_interleave(kernel.shape[1] // ways, dim=0)  # [n, W]
    dual, bias = _solve(kernel, targets)
    return queries @ dual + bias


def _solve(
    kernel: Float[Tensor, "E n n"], targets: Float[Tensor, "n W"]
) -> tuple[Float[Tensor, "E n W"], Float[Tensor, "E 1 W"]]:
    """Dual weights and biases by accelerated gradient descent (Nesterov 1983), restarted in episodes that overshoot.

    The curvature of softmax is at most 1/2. Therefore 1 + |kernel| / 2 bounds the curvature of the objective along the
    dual weights, in the metric of the kernel, and n / 2 bounds it along the biases.
    """
    rows = kernel.shape[1]
    step = 1 / (1 + torch.linalg.matrix_norm(kernel, ord=float("inf")).view(-1, 1, 1) / 2)
    dual = torch.zeros(len(kernel), *targets.shape, device=kernel.device)
    bias = torch.zeros(len(kernel), 1, targets.shape[1], device=kernel.device)
    ahead, ahead_bias, pace = dual, bias, torch.ones(len(kernel), 1, 1, device=kernel.device)
    for _ in range(STEPS):
        wrong = targets - (kernel @ ahead + ahead_bias).softmax(2)
        new = ahead + step * (wrong - ahead)
        new_bias = ahead_bias + wrong.sum(1, keepdim=True) * (2 / rows)
        moved, moved_bias = new - dual, new_bias - bias
        dual, bias = new, new_bias
        if float(torch.maximum(moved.abs().amax(), moved_bias.abs().amax())) < TOLERANCE * float(step.min()):
            break
        uphill = ((wrong - ahead) * moved).sum((1, 2), keepdim=True) < 0
        pace = torch.where(uphill, 1.0, pace)
        next_pace = (1 + (1 + 4 * pace.square()).sqrt()) / 2
        momentum, pace = (pace - 1) / next_pace, next_pace
        ahead, ahead_bias = dual + momentum * moved, bias + momentum * moved_bias
    return dual, bias
