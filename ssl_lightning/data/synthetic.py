"""SyntheticImages: rendered shapes of known classes, equal on every machine, for tests and speed measurements."""

from dataclasses import dataclass

from ssl_lightning.data.built_in import open_synthetic
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.models.preprocessing import RGB


@dataclass(kw_only=True, eq=False)
class SyntheticImages(ImageModule):
    """Striped shapes on shaded backgrounds. Shape and stripes are the class, all else is random.

    Args:
        samples: Training images.
        test_samples: Test images.
        classes: Number of classes, at most 60.
        size: Side of the images in pixels, before any crop.
        image_seed: Another seed gives other images of the same classes.
        mean: Mean of the image channels, as fractions 0..1.
        std: Standard deviation of the image channels, as fractions 0..1.
    """

    samples: int = 1024
    test_samples: int = 512
    classes: int = 10
    size: int = 32
    image_seed: int = 0
    mean: RGB = (0.5062, 0.4985, 0.4998)
    std: RGB = (0.2175, 0.22, 0.2177)

    def open_training(self) -> ImageDataset:
        """The training images."""
        return open_synthetic("train", self.samples, self.classes, self.size, self.image_seed)

    def default_probe_sets(self) -> Probes:
        """The training images and the test images."""
        test = open_synthetic("test", self.test_samples, self.classes, self.size, self.image_seed)
        return {"synthetic": (self.open_training(), test)}

    @property
    def evaluated_as(self) -> list[str]:
        """The name in `ProbeSet`."""
        return ["synthetic"]
