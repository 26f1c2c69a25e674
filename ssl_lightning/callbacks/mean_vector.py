"""MeanVector: means of several numbers over steps and processes."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


class MeanVector(Metric):
    """The mean of a vector over updates and processes, in one reduction for all of its numbers.

    `torchmetrics.MeanMetric` takes two and a half times as long for one number, which it checks and broadcasts first.

    Args:
        numbers: Length of the vector.
    """

    total: Float[Tensor, "N+1"]
    """The sums, and the number of updates."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(numbers + 1), dist_reduce_fx="sum")

    def update(self, values: Float[Tensor, "N"]) -> None:
        """Add a vector."""
        self.total += F.pad(values, (0, 1), value=1.0)

    def compute(self) -> Float[Tensor, "N"]:
        """The means."""
        return self.total[:-1] / self.total[-1]
