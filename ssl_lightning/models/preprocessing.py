"""Preprocessing: the image size and the normalization that a network is trained with."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ssl_lightning.errors import UsageError

RGB = tuple[float, float, float]
"""One number for each channel."""


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before a network takes it as input.

    Attributes:
        image_size: Side of the images in pixels.
        mean: Mean of the channels, as fractions 0..1.
        std: Standard deviation of the channels, as fractions 0..1.

    Raises:
        UsageError: For an image size below 1 or a standard deviation that is not positive.
    """

    image_size: int = 32
    mean: RGB = (0.5, 0.5, 0.5)
    std: RGB = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # a list becomes a tuple, so that equal values compare equal
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.image_size < 1 or min(self.std) <= 0:
            raise UsageError(f"found {self}; expected an image_size of at least 1 and three positive numbers as std")

    def normalize(self, images: UInt8[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """Bytes to what a network takes as input."""
        mean, std = self._channels(torch.float32, images.device)
        return (images.float() / 255 - mean) / std

    def normalize_(self, view: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """Fractions 0..1 to what a network takes as input, in place."""
        mean, std = self._channels(view.dtype, view.device)
        return view.sub_(mean).div_(std)

    def denormalize(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """What a network takes as input to fractions 0..1."""
        mean, std = self._channels(torch.float32, images.device)
        return images * std + mean

    def difference(self, other: "Preprocessing") -> str | None:
        """The name of the first attribute with another value in `other`; None for equal ones."""
        names = (field.name for field in fields(self))
        return next((name for name in names if getattr(self, name) != getattr(other, name)), None)

    def _channels(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=dtype, device=device).view(3, 1, 1) for values in (self.mean, self.std))
        return mean, std


DEFAULT_PREPROCESSING = Preprocessing()
"""32 pixels and a rough normalization of photographs; the command line takes that of the data."""
