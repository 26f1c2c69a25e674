"""Classifiers of few-shot episodes, all episodes at once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

EPISODES_AT_ONCE = 50
"""Whose features are held at once; of 5-way 5-shot ones with 15 queries and 512 features that is 10 MB."""
STEPS = 300
TOLERANCE = 1e-4
"""Largest change of a dual weight, which lies within -1..1, at which the logistic solver rests."""


def inner_products(
    features: Float[Tensor, "N D"], rows: Int[Tensor, "E W S"], shots: int
) -> tuple[Float[Tensor, "E n n"], Float[Tensor, "E Q n"]]:
    """All that a classifier needs of an episode: products of the shots with each other, and of the queries with them.

    Args:
        features: Of the whole split.
        rows: Of each episode and class first the shots, then the queries.
        shots: How many are shots; n is ways x shots, class by class, and Q is ways x queries.
    """
    kernels, crosses = [], []
    for block in rows.to(features.device).split(EPISODES_AT_ONCE):
        images = features[block]
        known, asked = images[:, :, :shots].flatten(1, 2), images[:, :, shots:].flatten(1, 2)
        kernels.append(known @ known.transpose(1, 2))
        crosses.append(asked @ known.transpose(1, 2))
    return torch.cat(kernels), torch.cat(crosses)


def mean_scores(kernel: Float[Tensor, "E n n"], asked: Float[Tensor, "E Q n"], ways: int) -> Float[Tensor, "E Q W"]:
    """The nearer the mean of a class's shots, the higher its score; a query's own norm falls on all classes alike."""
    to_means = asked.unflatten(2, (ways, -1)).mean(3)  # [E, Q, W]
    blocks = kernel.unflatten(2, (ways, -1)).unflatten(1, (ways, -1))  # [E, W, S, W, S]
    norms = blocks.mean((2, 4)).diagonal(dim1=1, dim2=2)  # [E, W]
    return 2 * to_means - norms.unsqueeze(1)


def logistic_scores(kernel: Float[Tensor, "E n n"], asked: Float[Tensor, "E Q n"], ways: int) -> Float[Tensor, "E Q W"]:
    """Logits of multinomial logistic regression on the shots: sum of cross-entropies plus |weights|^2 / 2, free biases.

    Solved in the dual: the weights are a combination of the shots, weights = shots^T A, and where the gradient vanishes
    A = Y - P with P the probabilities at A. With D in the hundreds and a handful of shots that is a matter of tiny
    matrices. The mean shot is taken off first, which the biases make up for and which conditions the problem.
    """
    asked = asked - asked.mean(2, keepdim=True) - kernel.mean(1, keepdim=True) + kernel.mean((1, 2), keepdim=True)
    kernel = kernel - kernel.mean(2, keepdim=True) - kernel.mean(1, keepdim=True) + kernel.mean((1, 2), keepdim=True)
    targets = torch.eye(ways, device=kernel.device).repeat_interleave(kernel.shape[1] // ways, dim=0)  # [n, W]
    dual, bias = _solve(kernel, targets)
    return asked @ dual + bias


def _solve(
    kernel: Float[Tensor, "E n n"], targets: Float[Tensor, "n W"]
) -> tuple[Float[Tensor, "E n W"], Float[Tensor, "E 1 W"]]:
    """Dual weights and biases by accelerated gradient steps [Nesterov 1983], with restarts where an episode overshoots.

    The softmax has curvature of at most 1/2, so 1 + |kernel| / 2 bounds that of the objective along the dual weights,
    in the metric of the kernel, and n / 2 that along the biases.
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
