"""Columns: features of any magnitude to a range in which products in float32 are accurate."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.clustering.rows import power_of_two

ROUNDING = 4 * torch.finfo(torch.float32).eps
"""A feature is constant if its distances from the mean are smaller than this fraction of its largest value."""
FARTHEST = 1e9
"""Largest distance of a value from the mean, in units of the largest such distance in the training split."""


@dataclass(frozen=True, eq=False)
class Columns:
    """A shift to mean 0 and a scale by a power of two of each feature, so that squares stay within float32.

    A feature that varies by rounding alone becomes 0. Ordinary features are only shifted: such a scale is exact.
    """

    scale: Float[Tensor, "D"]
    shift: Float[Tensor, "D"]
    spread: Float[Tensor, "D"]

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> "Columns":
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
