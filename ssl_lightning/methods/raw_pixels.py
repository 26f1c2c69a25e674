"""RawPixels: no network at all, the floor that every learned feature must beat."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.errors import UsageError
from ssl_lightning.methods.method import RGB, Method
from ssl_lightning.models.backbones import Backbone, Network


class Pixels(Backbone):
    """A body that only flattens; for images of one size, so it has no fixed number of features."""

    def build(self, in_channels: int = 3) -> Network:
        """See `Backbone.build`."""
        return Network(nn.Flatten(), num_features=0)


class RawPixels(Method):
    """The pixels of the center view as features, evaluated by the same code as every method.

    `ssl-lightning validate --model RawPixels ...` needs no checkpoint; it cannot be trained.

    Note:
        Cosine similarity depends on where nought is. Fractions 0..1, the raw pixels of the literature, are the default;
        with `normalized` the channels' mean is taken off, which on CIFAR-10 lifts k-NN by nine points.

    Args:
        normalized: Take pixels as networks see them, by mean and standard deviation of the channels.
        image_size: Side of the images, in pixels.
        mean: Mean of the images' channels as fractions 0..1.
        std: Their standard deviation.
    """

    def __init__(
        self,
        normalized: bool = False,
        image_size: int = 32,
        mean: RGB = (0.5, 0.5, 0.5),
        std: RGB = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(Pixels(), None, None, image_size, mean, std)
        self.normalized = normalized

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Normalized images to one row of pixels each."""
        if self.normalized:
            return images.flatten(1)
        mean, std = (torch.tensor(channels, device=images.device).view(3, 1, 1) for channels in (self.mean, self.std))
        return (images * std + mean).flatten(1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Raw pixels have nothing to learn.

        Raises:
            UsageError: Always.
        """
        raise UsageError("RawPixels has nothing to train; use `ssl-lightning validate`")
