"""UncuratedImages: an image collection without labels."""

import logging
from dataclasses import dataclass

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.data.packs import open_unlabelled
from ssl_lightning.processes import rank

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class UncuratedImages(ImageModule):
    """Unlabeled images of any size: a folder, nested or flat, or tar shards such as those of WebDataset.

    Shards are indexed once and read by offset; nothing is extracted and no sidecar is used. An unreadable image keeps
    its row and is left out of batches.

    Args:
        path: A manifest of `ssl-lightning data build`, a folder, a tar file, or several shards by a pattern
            (`pool-*.tar`) or braces (`pool-{000000..000005}.tar`): names in the folder of the environment variable
            SSL_LIGHTNING_DATA, or a path such as `./images`.
    """

    path: str

    def open_training(self) -> ImageDataset:
        """All images of the collection."""
        return open_unlabelled(self.path, self.source_options)

    def default_probe_sets(self) -> Probes:
        """None: a collection without labels is evaluated on the sets in `probe_sets`."""
        if rank() == 0:
            log.info("nothing is evaluated: the images have no labels; name labeled splits in --data.probe_sets")
        return {}

    @property
    def evaluated_as(self) -> list[str]:
        """The path."""
        return [self.path]
