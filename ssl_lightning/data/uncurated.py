"""UncuratedImages: an image collection that training uses without labels."""

import logging
from dataclasses import dataclass, replace

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.packs import open_unlabelled
from ssl_lightning.processes import rank

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class UncuratedImages(ImageModule):
    """Unlabeled images of any size: a folder, nested or flat, tar shards, tables, lists or arrays.

    Shards are indexed once and read by offset; nothing is extracted. An unreadable image keeps its row and is left out
    of batches.

    Args:
        path: A manifest of `ssl-lightning data build`, a folder, a file (.tar, .parquet, .arrow, .csv, .tsv, .jsonl,
            .txt, .npy, .npz, .h5), or several shards by a pattern (`pool-*.tar`) or braces
            (`pool-{000000..000005}.tar`): names in the folder of the environment variable SSL_LIGHTNING_DATA, a path
            such as `./images`, or an address such as `s3://bucket/pool-*.tar`.
        label: Labels for evaluation and reports, which self-supervised training does not use: a column of a table, list
            or `metadata.csv`, or files beside the images, `cls`, `txt`, `json` or `json:<key>`; for a manifest `label`
            or `metadata:<key>`; null for none.
    """

    path: str
    label: str | None = None

    def open_training(self) -> ImageDataset:
        """All images of the collection."""
        return open_unlabelled(self.path, self.source_options)

    def default_probe_sets(self) -> Probes:
        """None: a collection without labels is evaluated on the sets in `probe_sets`."""
        if rank() == 0:
            log.info("nothing is evaluated: the images have no labels; name labeled splits in --data.probe_sets")
        return {}

    @property
    def class_sizes(self) -> dict[str, int]:
        """See `TrainingData.class_sizes`; a collection without labels is not opened."""
        return super().class_sizes if self.label is not None else {}

    @property
    def source_options(self) -> SourceOptions:
        """How the files of the source are chosen and decoded, and where their labels are."""
        return replace(super().source_options, label=self.label)

    @property
    def evaluated_as(self) -> list[str]:
        """The path."""
        return [self.path]
