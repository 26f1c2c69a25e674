"""Layers of a backbone with a projector that `embed` offers for clustering and evaluation."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.models.heads import Projector


def layers_of(projector: nn.Module | None) -> tuple[str, ...]:
    """Names of the layers: the pooled features, the projector's last hidden layer, and the unit embeddings.

    Divide and Contrast clusters the hidden layer. A linear projector has none.

    Args:
        projector: None for a method without.
    """
    if projector is None:
        return ("backbone",)
    return ("backbone", "hidden", "projector") if isinstance(projector, Projector) else ("backbone", "projector")


def at_layer(layer: str, features: Float[Tensor, "B F"], projector: nn.Module | None) -> Float[Tensor, "B D"]:
    """What one of `layers_of(projector)` gives.

    Args:
        layer: Its name.
        features: Of the backbone.
        projector: The one that the name refers to.
    """
    if layer == "hidden" and isinstance(projector, Projector):
        return projector.hidden(features)
    if layer == "projector" and projector is not None:
        return F.normalize(projector(features).float(), dim=1)
    return features
