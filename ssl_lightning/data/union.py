"""UnionImages: several sources as one."""

from dataclasses import dataclass

from ssl_lightning.data.dataset import ConcatImages, ImageDataset
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.errors import UsageError


@dataclass(kw_only=True, eq=False)
class UnionImages(ImageModule):
    """The training images of several sources, one after the other.

    Args:
        sources: What to unite. Of each its images, its subset and its probe sets count; batches, views and the rest
            are set here.
    """

    sources: list[ImageModule]

    def open_training(self) -> ImageDataset:
        """The rows of the sources in their order; sample ids of later ones are raised above those of earlier ones.

        Raises:
            UsageError: No source is given.
        """
        if not self.sources:
            raise UsageError("found data.sources=[]; expected at least one source")
        return ConcatImages([source.training for source in self.sources])

    def default_probe_sets(self) -> Probes:
        """Those of all sources, the first one's first."""
        probes: Probes = {}
        for source in self.sources:
            for name, pair in source.probes.items():
                probes.setdefault(name, pair)
        return probes
