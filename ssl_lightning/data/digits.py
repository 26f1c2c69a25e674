"""Digits: the 1,797 handwritten digits of scikit-learn, for demos and tests without a download."""

from dataclasses import dataclass

from ssl_lightning.data.built_in import open_digits
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.models.preprocessing import RGB


@dataclass(kw_only=True, eq=False)
class Digits(ImageModule):
    """Handwritten digits, 8 x 8 pixels, grayscale: 1,438 training and 359 test images, without a download.

    Alpaydin and Kaynak: "Optical Recognition of Handwritten Digits", UCI, 1998; the subset in scikit-learn.

    Args:
        image_size: Side of a full-size view in pixels; crops enlarge the images.
        mean: Mean of the image channels, as fractions 0..1.
        std: Standard deviation of the image channels, as fractions 0..1.
    """

    image_size: int = 16
    mean: RGB = (0.3059, 0.3059, 0.3059)
    std: RGB = (0.3191, 0.3191, 0.3191)

    def open_training(self) -> ImageDataset:
        """The training digits."""
        return open_digits("train")

    def default_probe_sets(self) -> Probes:
        """The digits."""
        return {"digits": (open_digits("train"), open_digits("test"))}

    @property
    def evaluated_as(self) -> list[str]:
        """The name in `ProbeSet`."""
        return ["digits"]
