"""A feature transform: signed square roots, then unit length."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from ssl_lightning.clustering import FeatureTransform


@dataclass(frozen=True)
class SignedRoots(FeatureTransform):
    """Reduce the influence of large features before clustering."""

    def __call__(self, features: Float[Tensor, "N D"], group: ProcessGroup | None = None) -> Float[Tensor, "N E"]:
        """See `FeatureTransform`."""
        return F.normalize(features.sign() * features.abs().sqrt(), dim=1)
