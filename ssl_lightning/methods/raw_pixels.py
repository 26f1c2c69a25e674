"""RawPixels: no network, a baseline for learned features."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.errors import UsageError
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, Network
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing


class Pixels(Backbone):
    """A body that only flattens; the number of features depends on the image size."""

    def build(self, in_channels: int = 3) -> Network:
        """See `Backbone.build`."""
        return Network(nn.Flatten(), num_features=0)


class RawPixels(Method):
    """The pixels of the center view as features, evaluated by the same code as every method.

    `ssl-lightning validate --model RawPixels ...` needs no checkpoint; it cannot be trained.

    Note:
        Cosine similarity depends on the origin. Fractions 0..1, the raw pixels of the literature, are the default; with
        `normalized` the channels' mean is subtracted, which raises k-NN on CIFAR-10 by nine points.

    Args:
        normalized: Normalize the pixels by mean and standard deviation of the channels, as for networks.
        preprocessing: Image size and normalization of the images.
    """

    def __init__(
        self,
        normalized: bool = False,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(Pixels(), None, None, preprocessing)
        self.normalized = normalized

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Normalized images to a row of pixels each."""
        if self.normalized:
            return images.flatten(1)
        return self.preprocessing.denormalize(images).flatten(1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Raw pixels have nothing to learn.

        Raises:
            UsageError: Always.
        """
        raise UsageError("RawPixels has nothing to train; use `ssl-lightning validate`")
