"""Digits: 1,797 real handwritten digits that come with scikit-learn, for demos and tests without a download."""

from dataclasses import dataclass

from ssl_lightning.data.built_in import open_digits
from ssl_lightning.data.module import RGB, ImageModule, Probes
from ssl_lightning.data.pictures import Pictures


@dataclass(kw_only=True, eq=False)
class Digits(ImageModule):
    """Handwritten digits, 8 x 8 pixels, grey: 1,438 for training, 359 for test, nothing to download.

    Alpaydin and Kaynak: "Optical Recognition of Handwritten Digits", UCI, 1998; the part that scikit-learn ships.

    Args:
        image_size: Side of a full-size view in pixels; the crop enlarges the pictures.
        mean: Mean of the pictures' channels, as fractions 0..1.
        std: Standard deviation of the pictures' channels, as fractions 0..1.
    """

    image_size: int = 16
    mean: RGB = (0.3059, 0.3059, 0.3059)
    std: RGB = (0.3191, 0.3191, 0.3191)

    def open_training(self) -> Pictures:
        """The training digits."""
        return open_digits("train")

    def default_probe_sets(self) -> Probes:
        """The digits themselves."""
        return {"digits": (open_digits("train"), open_digits("test"))}
