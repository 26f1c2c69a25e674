"""Means: of several numbers over steps and processes."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


class MeanVector(Metric):
    """The means of a vector over what was added and over processes, in one reduction for all of its numbers.

    `torchmetrics.MeanMetric` takes two and a half times as long for one number, which it first checks and spreads.

    Args:
        numbers: How many.
    """

    total: Float[Tensor, "N+1"]
    """Their sums, and how often one was added."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(numbers + 1), dist_reduce_fx="sum")

    def update(self, values: Float[Tensor, "N"]) -> None:
        """Add one of each."""
        self.total += F.pad(values, (0, 1), value=1.0)

    def compute(self) -> Float[Tensor, "N"]:
        """Their means."""
        return self.total[:-1] / self.total[-1]
