"""UnionImages: the concatenation of several sources."""

from dataclasses import dataclass

from ssl_lightning.data.dataset import ConcatImages, ImageDataset
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.errors import UsageError


@dataclass(kw_only=True, eq=False)
class UnionImages(ImageModule):
    """The training images of several sources, concatenated.

    Args:
        sources: The sources. Their images, subsets and probe sets are used; batches, views and all else are set here.
    """

    sources: list[ImageModule]

    def open_training(self) -> ImageDataset:
        """The rows of the sources in order; sample ids of later sources are shifted above those of earlier ones.

        Raises:
            UsageError: If there is no source.
        """
        if not self.sources:
            raise UsageError("found data.sources=[]; expected at least one source")
        return ConcatImages([source.training for source in self.sources])

    def default_probe_sets(self) -> Probes:
        """The probe sets of all sources, those of the first source first."""
        probes: Probes = {}
        for source in self.sources:
            for name, pair in source.probes.items():
                probes.setdefault(name, pair)
        return probes
