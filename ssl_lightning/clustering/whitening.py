"""Transforms of features before clustering: PCA-whitening (DeepCluster), or unit rows (ClusterFit)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from ssl_lightning.clustering.rows import ShardedRows, in_range, unit_rows
from ssl_lightning.decompositions import symmetric_eigen
from ssl_lightning.errors import UsageError


class FeatureTransform(ABC):
    """A transform of features before clustering."""

    @abstractmethod
    def __call__(self, features: Float[Tensor, "N D"], group: ProcessGroup | None = None) -> Float[Tensor, "N E"]:
        """Fit on all rows (with a group, over its processes) and apply to the rows of this process."""


@dataclass(frozen=True)
class PCAWhitening(FeatureTransform):
    """Center, project to the largest principal components, divide by their standard deviation, normalize rows.

    Caron et al. 2018, section 3.2 ("PCA-reduced to 256 dimensions, whitened and l2-normalized"). The covariance is
    computed in float64. Components with a variance below `epsilon` times the largest are divided by that floor, so that
    constant or zero features give zeros, not NaN. The scale of the features does not matter. Signs are chosen so that
    the largest loading of each component is positive.

    Args:
        dim: Number of components.
        epsilon: Smallest variance as a fraction of the largest.
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
            UsageError: If there are fewer features, or fewer rows over all processes, than `dim`.
        """
        rows = in_range(ShardedRows(features.detach().float(), group))
        width = features.shape[1]
        if self.dim > min(width, rows.total):
            raise UsageError(
                f"found PCAWhitening dim={self.dim} for {rows.total} rows of {width} features; lower dim or give more"
            )
        mean, covariance = _moments(rows)
        variances, basis = symmetric_eigen(covariance)
        variances, basis = variances.flip(0)[: self.dim].clamp(min=0), _signed(basis.flip(1)[:, : self.dim])
        floor = (variances[0] * self.epsilon).clamp(min=torch.finfo(torch.float32).tiny)
        projection = basis / variances.clamp(min=float(floor)).sqrt()
        return F.normalize((rows.features - mean.float()) @ projection.float(), dim=1)


@dataclass(frozen=True)
class UnitRows(FeatureTransform):
    """Normalize rows to unit length, for Euclidean k-means on the sphere (Yan et al. 2020). Zero rows stay zero."""

    @torch.no_grad()
    def __call__(self, features: Float[Tensor, "N D"], group: ProcessGroup | None = None) -> Float[Tensor, "N E"]:
        """Unit rows; nothing is fitted."""
        return unit_rows(features.detach().float())


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
