"""LinearProbe: a linear classifier on frozen features with a closed-form or convex solver."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.clustering.rows import power_of_two
from ssl_lightning.decompositions import symmetric_eigen
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe, undefined

PENALTIES = tuple(10.0**exponent for exponent in range(-6, 3))
"""Candidate ridge penalties, as fractions of the mean eigenvalue of the features' covariance."""
MOST_STEPS, AT_REST = 100, 1e-4
"""Logistic solver: the largest number of steps, and the relative change of the loss at which it stops."""
ROWS_AT_A_TIME = 1024
"""Rows per block, so that both products of a step find them in the cache."""

ROUNDING = 4 * torch.finfo(torch.float32).eps
"""A feature whose distances from its mean are smaller, as a fraction of its largest value, is constant."""
FARTHEST = 1e9
"""Largest distance of a value from the mean, in units of the largest such distance in the training split."""

Linear = Float64[Tensor, "_ C"]
"""Weights of a classifier and, in the last row, its biases: [D + 1, C]."""


@dataclass(frozen=True)
class LinearProbe(Probe):
    """Ridge regression to one-hot classes, its penalty chosen on a fifth of the training split, or logistic regression.

    One eigendecomposition serves all penalties. On cached features, ridge takes less than a tenth of the time of 100
    epochs of SGD. Its accuracy is at most one point lower than that of logistic regression on network features and four
    points lower on the pixels of digits (benchmarks/README.md); "logistic" takes two to six times as long. This is a
    check during training; it is not the protocol of a paper, which augments images.

    Args:
        seed: Seed of the held-out fifth.
        classifier: "ridge", or "logistic": multinomial logistic regression with the penalty chosen by ridge divided by
            the number of classes, which is the ratio of the curvatures of squared error and cross-entropy at the start.
    """

    seed: int = 0
    classifier: Literal["ridge", "logistic"] = "ridge"

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """Return `linear/top1` and, for more than five classes, `linear/top5`; NaN if the splits share no class."""
        shared = torch.isin(test.labels, train.labels.unique())
        if not shared.any() or len(train.labels) < 2:
            found = (
                f"{len(train.labels)} training and {len(test.labels)} test rows, {int(shared.sum())} of known classes"
            )
            expected = "at least 2 training rows, and test rows of their classes"
            return {"linear/top1": undefined("LinearProbe's linear/top1", found, expected)}
        scores = self.scores(train, test.features)
        if not bool(torch.isfinite(scores).any()):  # -inf for absent classes alone
            expected = "features with an eigendecomposition"
            return {"linear/top1": undefined("LinearProbe's linear/top1", "no solution", expected)}
        metrics = {"linear/top1": _top(scores, test.labels, 1)}
        if train.num_classes > 5:
            metrics["linear/top5"] = _top(scores, test.labels, 5)
        return metrics

    def scores(self, train: LabelledFeatures, queries: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """One score per class for each query; a class without training rows has the lowest score."""
        columns = _Columns.of(train.features.float())
        features = columns(train.features.float())
        held = self._held_out(len(features))
        everything = _Sums.of(features, train.labels, train.num_classes)
        penalty = 1.0
        if len(held):
            held_out, truth = features[held], train.labels[held]
            candidates = _Ridge(everything - _Sums.of(held_out, truth, train.num_classes))
            tops = [_top(_scores(candidates.weights(penalty), held_out), truth, 1) for penalty in PENALTIES]
            penalty = PENALTIES[max(range(len(PENALTIES)), key=lambda i: (tops[i], PENALTIES[i]))]
        solved = _Ridge(everything)
        if self.classifier == "ridge":
            fitted = solved.weights(penalty)
        else:
            fitted = solved.logistic_weights(features, train.labels, penalty / train.num_classes)
        scores = _scores(fitted, columns(queries.float()))
        absent = torch.bincount(train.labels, minlength=train.num_classes) == 0
        return scores.masked_fill(absent, -torch.inf)

    def _held_out(self, size: int) -> Int[Tensor, "h"]:
        return torch.randperm(size, generator=torch.Generator().manual_seed(self.seed))[: size // 5]


@dataclass(frozen=True, eq=False)
class _Columns:
    """A shift to mean 0 and a scale by a power of two of each feature, so that squares stay within float32.

    A feature that varies by rounding alone becomes 0. Ordinary features are only shifted: such a scale is exact.
    """

    scale: Float[Tensor, "D"]
    shift: Float[Tensor, "D"]
    spread: Float[Tensor, "D"]

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> "_Columns":
        """The columns of a training split."""
        low, high = torch.aminmax(features, dim=0)
        largest = torch.maximum(low.abs(), high.abs())
        scale = power_of_two(largest)
        shift = (features * scale).mean(0)
        spread = torch.maximum(high * scale - shift, shift - low * scale)
        constant = spread <= ROUNDING * largest * scale
        return cls(scale, shift, power_of_two(spread).masked_fill(constant, 0.0))

    def __call__(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Features of any split; values far outside the range of the training split are cut."""
        return (features * self.scale).sub_(self.shift).mul_(self.spread).clamp_(-FARTHEST, FARTHEST)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sufficient statistics of least squares. Removing rows is a subtraction, so no row is read twice."""

    rows: int
    x: Float64[Tensor, "D"]
    y: Float64[Tensor, "C"]
    xx: Float64[Tensor, "D D"]
    xy: Float64[Tensor, "D C"]

    @classmethod
    def of(cls, features: Float[Tensor, "N D"], labels: Int[Tensor, "N"], num_classes: int) -> "_Sums":
        """Sums over features that are approximately centered, with products in float32."""
        y = F.one_hot(labels, num_classes).to(features.dtype)
        xx, xy = features.T @ features, features.T @ y
        return cls(len(labels), features.sum(0).double(), y.sum(0).double(), xx.double(), xy.double())

    def __sub__(self, part: "_Sums") -> "_Sums":
        names = ("rows", "x", "y", "xx", "xy")
        return _Sums(*(getattr(self, name) - getattr(part, name) for name in names))


class _Ridge:
    """Penalized classifiers of standardized features, in an eigenbasis that serves every penalty.

    A penalty p adds p m |w|^2 / 2, where m is the mean eigenvalue of the correlations, to half the mean squared error
    or to the mean cross-entropy.
    """

    def __init__(self, sums: _Sums) -> None:
        self.mean, self.offset = sums.x / sums.rows, sums.y / sums.rows
        covariance = sums.xx / sums.rows - self.mean.outer(self.mean)
        self.scale = covariance.diagonal().clamp(min=0).sqrt().clamp(min=1e-6)
        correlation = covariance / self.scale.outer(self.scale)
        eigenvalues, self.basis = symmetric_eigen(correlation)
        self.eigenvalues = eigenvalues.clamp(min=0)
        cross = (sums.xy / sums.rows - self.mean.outer(self.offset)) / self.scale.unsqueeze(1)
        self.rotated = self.basis.T @ cross

    def weights(self, penalty: float) -> Linear:
        """Least squares to one-hot targets."""
        damped = (self.eigenvalues + self._ridge(penalty)).unsqueeze(1)
        weights = self.basis @ (self.rotated / damped) / self.scale.unsqueeze(1)
        return torch.cat([weights, (self.offset - self.mean @ weights).unsqueeze(0)])

    def logistic_weights(self, features: Float[Tensor, "N D"], labels: Int[Tensor, "N"], penalty: float) -> Linear:
        """Multinomial logistic regression on the rows of the sums, by Nesterov's accelerated gradient method.

        The curvature of cross-entropy is at most half that of squared error (Boehning 1992, "Multinomial logistic
        regression algorithm"). In coordinates where correlations plus penalty are the identity it is at most 1/2, so a
        step of twice the gradient never overshoots. The first step has the direction of least squares.
        """
        targets = F.one_hot(labels, len(self.offset)).to(features.dtype)
        frame, pull = (part.to(features.dtype) for part in self._frame(self._ridge(penalty)))
        at = frame.new_zeros(len(frame), len(self.offset))
        at[-1] = self.offset.clamp(min=1e-9).log()
        ahead, momentum, loss = at, 1.0, math.inf
        for _ in range(MOST_STEPS):
            entropy, slope = _cross_entropy(features, targets, frame @ ahead)
            before, loss = loss, entropy + 0.5 * float((pull * ahead.square()).sum())
            if abs(before - loss) <= AT_REST * loss:
                break
            moved = ahead - 2 * (frame.T @ slope + pull * ahead)
            gain, momentum = momentum - 1, (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead, at = moved + gain / momentum * (moved - at), moved
        return (frame @ at).double()

    def _ridge(self, penalty: float) -> Float64[Tensor, ""]:
        return penalty * self.eigenvalues.mean().clamp(min=1e-12)

    def _frame(self, ridge: Float64[Tensor, ""]) -> tuple[Float64[Tensor, "_ _"], Float64[Tensor, "_ 1"]]:
        """The map from coordinates in which correlations plus penalty are the identity to weights, and the penalty."""
        damped, size = self.eigenvalues + 2 * ridge, len(self.basis)
        frame = torch.eye(size + 1, dtype=self.basis.dtype, device=self.basis.device)
        frame[:size, :size] = self.basis / damped.sqrt() / self.scale.unsqueeze(1)
        frame[size, :size] = -self.mean @ frame[:size, :size]
        return frame, F.pad(ridge / damped, (0, 1)).unsqueeze(1)


def _cross_entropy(
    features: Float[Tensor, "N D"], targets: Float[Tensor, "N C"], fitted: Float[Tensor, "D+1 C"]
) -> tuple[float, Float[Tensor, "D+1 C"]]:
    """Mean cross-entropy of a classifier, and its gradient."""
    total, slope = torch.zeros((), dtype=torch.float64, device=fitted.device), torch.zeros_like(fitted)
    for rows, truth in zip(features.split(ROWS_AT_A_TIME), targets.split(ROWS_AT_A_TIME), strict=True):
        logs = torch.addmm(fitted[-1], rows, fitted[:-1]).log_softmax(1)
        total -= (logs * truth).sum()
        error = logs.exp_().sub_(truth)
        slope[:-1].addmm_(rows.T, error)
        slope[-1] += error.sum(0)
    return float(total) / len(features), slope / len(features)  # one synchronization with a GPU, not one per block


def _scores(fitted: Linear, queries: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
    weights = fitted.to(queries.dtype)
    return torch.addmm(weights[-1], queries, weights[:-1])


def _top(scores: Float[Tensor, "M C"], labels: Int[Tensor, "M"], k: int) -> float:
    best = scores.topk(k, dim=1).indices
    return float((best == labels.unsqueeze(1)).any(1).double().mean())
