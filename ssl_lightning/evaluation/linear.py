"""LinearProbe: a linear classifier on frozen features with a closed-form or convex solver."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.decompositions import symmetric_eigen
from ssl_lightning.evaluation.class_groups import accuracies
from ssl_lightning.evaluation.columns import Columns
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe, undefined

PENALTIES = tuple(10.0**exponent for exponent in range(-6, 3))
"""Candidate ridge penalties, as fractions of the mean eigenvalue of the features' covariance."""
LOGISTIC_PENALTIES = (1.0, 0.1, 0.03, 0.01, 0.003, 0.001, 1e-4, 1e-5)
"""Candidate logistic penalties in the same unit, largest first: each solution starts from the one before."""
MOST_STEPS, AT_REST = 100, 1e-4
"""Logistic solver: the largest number of steps, and the relative change of the loss at which it stops."""
ROUGH_STEPS, ROUGHLY_AT_REST = 30, 1e-3
"""The same while a penalty is chosen: accuracies differ less between solutions than between penalties."""
ROWS_AT_A_TIME = 1024
"""Rows per block, so that both products of a step find them in the cache."""

Linear = Float64[Tensor, "_ C"]
"""Weights of a classifier and, in the last row, its biases: [D + 1, C]."""


@dataclass(frozen=True)
class LinearProbe(Probe):
    """Multinomial logistic regression on standardized features, or ridge regression to one-hot classes.

    The penalty is chosen on a fifth of the training split, never on the test split. Logistic regression is the number
    to report. Ridge is faster and less accurate, for frequent evaluation during training: benchmarks/README.md compares
    both with scikit-learn and SGD. This is not the protocol of a paper, which augments images.

    Args:
        seed: Seed of the held-out fifth.
        classifier: "logistic", reported as `eval/linear/...`, or "ridge", reported as `eval/ridge/...`.
    """

    seed: int = 0
    classifier: Literal["logistic", "ridge"] = "logistic"

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """Return `linear/top1` (or `ridge/top1`), also of `test.groups`, and, for more than five classes, `top5`.

        NaN if the splits share no class.
        """
        name = "linear" if self.classifier == "logistic" else "ridge"
        shared = torch.isin(test.labels, train.labels.unique())
        if not shared.any() or len(train.labels) < 2:
            found = (
                f"{len(train.labels)} training and {len(test.labels)} test rows, {int(shared.sum())} of known classes"
            )
            expected = "at least 2 training rows, and test rows of their classes"
            return {f"{name}/top1": undefined(f"LinearProbe's {name}/top1", found, expected)}
        scores = self.scores(train, test.features)
        if not bool(torch.isfinite(scores).any()):  # -inf for absent classes alone
            expected = "features with an eigendecomposition"
            return {f"{name}/top1": undefined(f"LinearProbe's {name}/top1", "no solution", expected)}
        metrics = accuracies(f"{name}/top1", _hits(scores, test.labels, 1), test)
        if train.num_classes > 5:
            metrics[f"{name}/top5"] = _top(scores, test.labels, 5)
        return metrics

    def scores(self, train: LabelledFeatures, queries: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """One score per class for each query; a class without training rows has the lowest score."""
        columns = Columns.of(train.features.float())
        fitted = self._fitted(columns(train.features.float()), train.labels, train.num_classes)
        scores = _scores(fitted, columns(queries.float()))
        absent = torch.bincount(train.labels, minlength=train.num_classes) == 0
        return scores.masked_fill(absent, -torch.inf)

    def _fitted(self, features: Float[Tensor, "N D"], labels: Int[Tensor, "N"], num_classes: int) -> Linear:
        """The classifier of all rows, with the penalty that is best on the held-out rows; the larger of equal ones."""
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(self.seed)).to(features.device)
        held, rest = order[: len(features) // 5], order[len(features) // 5 :]
        everything = _Sums.of(features, labels, num_classes)
        penalty, start = 1.0, None
        if len(held):
            held_out, truth = features[held], labels[held]
            candidates = _Ridge(everything - _Sums.of(held_out, truth, num_classes))

            def accuracy(fitted: Linear) -> float:
                return _top(_scores(fitted, held_out), truth, 1)

            if self.classifier == "ridge":
                tops = [accuracy(candidates.weights(penalty)) for penalty in PENALTIES]
                penalty = PENALTIES[max(range(len(PENALTIES)), key=lambda i: (tops[i], PENALTIES[i]))]
            else:
                penalty, start = _best_logistic(candidates, features[rest], labels[rest], accuracy)
        solved = _Ridge(everything)
        if self.classifier == "ridge":
            return solved.weights(penalty)
        return solved.logistic_weights(features, labels, penalty, start)


def _best_logistic(
    candidates: "_Ridge",
    features: Float[Tensor, "N D"],
    labels: Int[Tensor, "N"],
    accuracy: Callable[[Linear], float],
) -> tuple[float, Linear | None]:
    """The logistic penalty with the best accuracy and its weights; the search ends after two smaller penalties lost."""
    best, penalty, start, found, worse = -1.0, LOGISTIC_PENALTIES[0], None, None, 0
    for candidate in LOGISTIC_PENALTIES:
        found = candidates.logistic_weights(features, labels, candidate, found, ROUGH_STEPS, ROUGHLY_AT_REST)
        top = accuracy(found)
        worse = 0 if top > best else worse + 1
        if top > best:
            best, penalty, start = top, candidate, found
        elif worse == 2:
            break
    return penalty, start


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

    def logistic_weights(
        self,
        features: Float[Tensor, "N D"],
        labels: Int[Tensor, "N"],
        penalty: float,
        start: Linear | None = None,
        most_steps: int | None = None,
        at_rest: float | None = None,
    ) -> Linear:
        """Multinomial logistic regression on the rows of the sums, by Nesterov's accelerated gradient method.

        The curvature of cross-entropy is at most half that of squared error (Boehning 1992, "Multinomial logistic
        regression algorithm"). In coordinates where correlations plus penalty are the identity it is at most 1/2, so a
        step of twice the gradient never overshoots. The first step has the direction of least squares.

        Args:
            features: Rows of the sums.
            labels: Their classes.
            penalty: See the class.
            start: Weights to start from; None for the frequencies of the classes.
            most_steps: Largest number of steps; None for `MOST_STEPS`.
            at_rest: Relative change of the loss at which the solver stops; None for `AT_REST`.
        """
        most_steps, at_rest = most_steps or MOST_STEPS, AT_REST if at_rest is None else at_rest
        targets = F.one_hot(labels, len(self.offset)).to(features.dtype)
        frame, pull = (part.to(features.dtype) for part in self._frame(self._ridge(penalty)))
        if start is None:
            at = frame.new_zeros(len(frame), len(self.offset))
            at[-1] = self.offset.clamp(min=1e-9).log()
        else:
            at = self._in_frame(start, self._ridge(penalty)).to(features.dtype)
        ahead, momentum, loss = at, 1.0, math.inf
        for _ in range(most_steps):
            entropy, slope = _cross_entropy(features, targets, frame @ ahead)
            before, loss = loss, entropy + 0.5 * float((pull * ahead.square()).sum())
            if abs(before - loss) <= at_rest * loss:
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

    def _in_frame(self, fitted: Linear, ridge: Float64[Tensor, ""]) -> Linear:
        """Weights in the coordinates of `_frame`."""
        damped = (self.eigenvalues + 2 * ridge).sqrt().unsqueeze(1)
        weights = damped * (self.basis.T @ (self.scale.unsqueeze(1) * fitted[:-1]))
        return torch.cat([weights, (fitted[-1] + self.mean @ fitted[:-1]).unsqueeze(0)])


def _cross_entropy(
    features: Float[Tensor, "N D"], targets: Float[Tensor, "N C"], fitted: Float[Tensor, "D+1 C"]
) -> tuple[float, Float[Tensor, "D+1 C"]]:
    """Mean cross-entropy of a classifier, and its gradient.

    Both products have the layout [C, D], in which a CPU takes a third of the time of [D, C].
    """
    weights, bias = fitted[:-1].T.contiguous(), fitted[-1].contiguous()
    total, slope = torch.zeros((), dtype=torch.float64, device=fitted.device), torch.zeros_like(weights)
    shift = torch.zeros_like(bias)
    for rows, truth in zip(features.split(ROWS_AT_A_TIME), targets.split(ROWS_AT_A_TIME), strict=True):
        logs = F.linear(rows, weights, bias).log_softmax(1)
        total -= (logs * truth).sum()
        error = logs.exp_().sub_(truth)
        slope.addmm_(error.T, rows)
        shift += error.sum(0)
    gradient = torch.cat([slope.T, shift.unsqueeze(0)]) / len(features)
    return float(total) / len(features), gradient  # one synchronization with a GPU, not one per block


def _scores(fitted: Linear, queries: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
    weights = fitted.to(queries.dtype)
    return torch.addmm(weights[-1], queries, weights[:-1])


def _top(scores: Float[Tensor, "M C"], labels: Int[Tensor, "M"], k: int) -> float:
    return float(_hits(scores, labels, k).double().mean())


def _hits(scores: Float[Tensor, "M C"], labels: Int[Tensor, "M"], k: int) -> Bool[Tensor, "M"]:
    found, best = scores.topk(k, dim=1)
    hits = (best == labels.unsqueeze(1)) & (found > -torch.inf)  # a class without training rows is never right
    return hits.any(1)
