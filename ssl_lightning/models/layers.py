"""Layers of a backbone with a projector that a method is clustered and evaluated at."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.models.heads import Projector

ENCODER_LAYERS = ("backbone", "hidden", "projector")
"""The pooled features; the projector's last hidden layer, which Divide and Contrast clusters; unit embeddings."""


def features_at(
    layer: str, backbone: nn.Module, projector: Projector, images: Float[Tensor, "B 3 h w"]
) -> Float[Tensor, "B D"]:
    """What one of `ENCODER_LAYERS` gives for normalized images."""
    features = backbone(images)
    if layer == "hidden":
        return projector.hidden(features)
    return F.normalize(projector(features).float(), dim=1) if layer == "projector" else features
