"""What is done to features before they are clustered: PCA-whitening [DeepCluster], or unit rows alone [ClusterFit]."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from ssl_lightning.clustering.rows import ShardedRows
from ssl_lightning.errors import UsageError


class FeatureTransform(ABC):
    """What is done to features before they are clustered."""

    @abstractmethod
    def __call__(self, features: Float[Tensor, "N D"], group: ProcessGroup | None = None) -> Float[Tensor, "N E"]:
        """Fit on all rows (with a group, over its processes) and apply to this process's."""


@dataclass(frozen=True)
class PCAWhitening(FeatureTransform):
    """Center, rotate to the largest principal components, divide by their standard deviation, scale rows to length 1.

    Caron et al. 2018, section 3.2 ("PCA-reduced to 256 dimensions, whitened and l2-normalized"). The covariance is
    taken in float64. Components whose variance is below `epsilon` of the largest are divided by that floor, so constant
    or zero features give zeros instead of NaN. The sign of each component makes its largest loading positive.

    Args:
        dim: Components to keep.
        epsilon: Smallest variance as a share of the largest.
    """

    dim: int
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.dim < 1 or self.epsilon <= 0:
            raise UsageError(f"found PCAWhitening(dim={self.dim}, epsilon={self.epsilon}); expected positive numbers")

    @torch.no_grad()
    def __call__(self, features: Float[Tensor, "N D"], group: ProcessGroup | None = None) -> Float[Tensor, "N E"]:
        """Whitened unit rows.

        Raises:
            ValueError: If there are fewer features, or fewer rows over all processes, than `dim`.
        """
        rows = ShardedRows(features.detach().float(), group)
        width = features.shape[1]
        if self.dim > min(width, rows.total):
            raise UsageError(
                f"found PCAWhitening dim={self.dim} for {rows.total} rows of {width} features; lower dim or give more"
            )
        mean, covariance = _moments(rows)
        variances, basis = torch.linalg.eigh(covariance)
        variances, basis = variances.flip(0)[: self.dim].clamp(min=0), _signed(basis.flip(1)[:, : self.dim])
        floor = (variances[0] * self.epsilon).clamp(min=torch.finfo(torch.float32).tiny)
        projection = basis / variances.clamp(min=float(floor)).sqrt()
        return F.normalize((rows.features - mean.float()) @ projection.float(), dim=1)


@dataclass(frozen=True)
class UnitRows(FeatureTransform):
    """Scale rows to length 1, so that Euclidean k-means works on the sphere (Yan et al. 2020); rows of zeros stay."""

    @torch.no_grad()
    def __call__(self, features: Float[Tensor, "N D"], group: ProcessGroup | None = None) -> Float[Tensor, "N E"]:
        """Unit rows; nothing is fitted."""
        return F.normalize(features.detach().float(), dim=1)


def _moments(rows: ShardedRows) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
    """Mean and covariance over all processes, in float64, block by block."""
    width = rows.features.shape[1]
    mean = rows.sum(rows.features.double().sum(0)) / rows.total
    covariance = torch.zeros(width, width, dtype=torch.float64, device=rows.features.device)
    for block in rows.features.split(8192):
        centered = block.double() - mean
        covariance.addmm_(centered.T, centered)
    return mean, rows.sum(covariance) / rows.total


def _signed(basis: Float[Tensor, "D E"]) -> Float[Tensor, "D E"]:
    largest = basis.abs().argmax(0, keepdim=True)
    return basis * torch.where(basis.gather(0, largest) < 0, -1.0, 1.0)
