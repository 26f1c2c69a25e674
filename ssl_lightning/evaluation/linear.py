"""LinearProbe: a linear classifier on frozen features, solved exactly."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.evaluation.probe import LabelledFeatures, Probe, no_answer

PENALTIES = tuple(10.0**exponent for exponent in range(-6, 3))
"""Ridge penalties tried, as shares of the mean eigenvalue of the features' covariance."""


@dataclass(frozen=True)
class LinearProbe(Probe):
    """Ridge regression to one-hot classes, its penalty chosen on a fifth of the training split.

    One eigendecomposition serves all penalties. On cached features it takes less than a tenth of the time of 100 epochs
    of SGD; squares instead of logarithms cost a point at most on features of networks, and four on the pixels of digits
    (benchmarks/judges.py). It is a check during training, not a paper's protocol (which augments).

    Args:
        seed: Which fifth is held out.
    """

    seed: int = 0

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """`linear/top1` and, with more than five classes, `linear/top5`; NaN where the splits share no class."""
        shared = torch.isin(test.labels, train.labels.unique())
        if not shared.any() or len(train.labels) < 2:
            found = (
                f"{len(train.labels)} training and {len(test.labels)} test rows, {int(shared.sum())} of known classes"
            )
            expected = "at least 2 training rows, and test rows of their classes"
            return {"linear/top1": no_answer("LinearProbe's linear/top1", found, expected)}
        scores = self.scores(train, test.features)
        answers = {"linear/top1": _top(scores, test.labels, 1)}
        if train.num_classes > 5:
            answers["linear/top5"] = _top(scores, test.labels, 5)
        return answers

    def scores(self, train: LabelledFeatures, queries: Float[Tensor, "M D"]) -> Float[Tensor, "M C"]:
        """One score a class for each query; a class without training rows scores lowest."""
        shift = train.features.float().mean(0)
        features = train.features.float() - shift
        held = self._held_out(len(features))
        everything = _Sums.of(features, train.labels, train.num_classes)
        penalty = 1.0
        if len(held):
            asked, truth = features[held], train.labels[held]
            candidates = _Ridge(everything - _Sums.of(asked, truth, train.num_classes))
            tops = [_top(candidates.scores(asked, penalty), truth, 1) for penalty in PENALTIES]
            penalty = PENALTIES[max(range(len(PENALTIES)), key=lambda i: (tops[i], PENALTIES[i]))]
        scores = _Ridge(everything).scores(queries.float() - shift, penalty)
        absent = torch.bincount(train.labels, minlength=train.num_classes) == 0
        return scores.masked_fill(absent, -torch.inf)

    def _held_out(self, size: int) -> Int[Tensor, "h"]:
        return torch.randperm(size, generator=torch.Generator().manual_seed(self.seed))[: size // 5]


@dataclass(frozen=True, eq=False)
class _Sums:
    """All that least squares needs of some rows. Taking a part away is a subtraction, so no row is visited twice."""

    rows: int
    x: Float64[Tensor, "D"]
    y: Float64[Tensor, "C"]
    xx: Float64[Tensor, "D D"]
    xy: Float64[Tensor, "D C"]

    @classmethod
    def of(cls, features: Float[Tensor, "N D"], labels: Int[Tensor, "N"], num_classes: int) -> "_Sums":
        """Sums over features that are about centred: products are taken in float32."""
        y = F.one_hot(labels, num_classes).to(features.dtype)
        xx, xy = features.T @ features, features.T @ y
        return cls(len(labels), features.sum(0).double(), y.sum(0).double(), xx.double(), xy.double())

    def __sub__(self, part: "_Sums") -> "_Sums":
        names = ("rows", "x", "y", "xx", "xy")
        return _Sums(*(getattr(self, name) - getattr(part, name) for name in names))


class _Ridge:
    """Least squares from standardised features to one-hot targets, in the eigenbasis that serves every penalty."""

    def __init__(self, sums: _Sums) -> None:
        self.mean, self.offset = sums.x / sums.rows, sums.y / sums.rows
        covariance = sums.xx / sums.rows - self.mean.outer(self.mean)
        self.scale = covariance.diagonal().clamp(min=0).sqrt().clamp(min=1e-6)
        correlation = covariance / self.scale.outer(self.scale)
        eigenvalues, self.basis = torch.linalg.eigh(correlation)
        self.eigenvalues = eigenvalues.clamp(min=0)
        cross = (sums.xy / sums.rows - self.mean.outer(self.offset)) / self.scale.unsqueeze(1)
        self.rotated = self.basis.T @ cross

    def scores(self, queries: Float[Tensor, "M D"], penalty: float) -> Float[Tensor, "M C"]:
        """Penalty is a share of the mean eigenvalue."""
        ridge = penalty * self.eigenvalues.mean().clamp(min=1e-12)
        weights = self.basis @ (self.rotated / (self.eigenvalues + ridge).unsqueeze(1)) / self.scale.unsqueeze(1)
        bias = self.offset - self.mean @ weights
        return queries @ weights.to(queries.dtype) + bias.to(queries.dtype)


def _top(scores: Float[Tensor, "M C"], labels: Int[Tensor, "M"], k: int) -> float:
    best = scores.topk(k, dim=1).indices
    return float((best == labels.unsqueeze(1)).any(1).double().mean())
