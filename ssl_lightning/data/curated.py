"""CuratedImages: labeled images in class folders, tables, or a folder of torchvision's downloads."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.downloaded import is_downloaded
from ssl_lightning.data.long_tail import long_tailed_rows
from ssl_lightning.data.module import ImageModule, Probes
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.data.packs import open_labelled, splits
from ssl_lightning.data.sources.opening import sources_at
from ssl_lightning.errors import UsageError
from ssl_lightning.processes import rank
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)
TEST_SPLITS = ("test", "val", "valid", "validation")
"""The default test split, and those that count as test where it does not exist."""


@dataclass(kw_only=True, eq=False)
class CuratedImages(ImageModule):
    """Images with the layout `split/class/file`, in a folder or a tar file (plain, or compressed and small).

    Folders of Hugging Face datasets, such as `data/train-00000-of-00002.parquet`, tables with a column of labels, and
    the folders `cifar-10-batches-py`, `cifar-100-python` and `stl10_binary` of torchvision's downloads are read too.

    Args:
        path: The folder or tar file: a name in the folder of the environment variable SSL_LIGHTNING_DATA, or a path
            such as `./images`. The splits may lie in one folder on top.
        split: The split for training; null if the class folders are directly in `path`.
        test_split: The split for evaluation unless `probe_sets` is given. `val` or `valid` counts as test where there
            is no `test`.
        label: For tables, the column of labels; null for the usual names. For images without class folders, as in
            `UncuratedImages`.
        imbalance: Train on a long-tailed selection: of C classes, in the order of their names, class j has
            imbalance^(-j / (C - 1)) times as many images as the largest, at least one. 100 makes CIFAR-10-LT of
            CIFAR-10. Every run has the same selection. Probe sets are whole.
    """

    path: str
    split: str | None = "train"
    test_split: str = "test"
    label: str | None = None
    imbalance: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.imbalance >= 1:
            raise UsageError(
                f"found data.imbalance={self.imbalance:g}; expected at least 1: 100 for a largest class of 100 times "
                "as many images as the smallest"
            )

    def open_training(self) -> ImageDataset:
        """The training split, or a long-tailed selection of it."""
        whole = self._whole_split()
        return whole if self.imbalance == 1 else whole.select(long_tailed_rows(whole.labels, self.imbalance))

    def _whole_split(self) -> ImageDataset:
        return open_labelled(self.path, self.split, self.source_options)

    def default_probe_sets(self) -> Probes:
        """The whole training split and the test split; none, with a warning, without a test split or labels."""
        if self.split is None:
            return self._without("data.split is null, so there is no test split; give --data.split train")
        there = splits(self.path, beside=self.split)
        split = next((name for name in (self.test_split, *self._replacements) if name in there), None)
        if split is None:
            found = f"found splits {', '.join(there)} in {self.path}; expected {self.test_split!r}"
            return self._without(f"{found}: give --data.test_split one of these")
        train = self._whole_split()
        if without := int((train.labels == UNLABELLED).sum()):
            return self._without(f"found {without} of {len(train)} images of {self.path}/{self.split} without a label")
        if split != self.test_split and rank() == 0:
            log.info("found no split %r in %s: %r is the test split", self.test_split, self.path, split)
        return {self._name(): (train, open_labelled(self.path, split, self.source_options))}

    @property
    def source_options(self) -> SourceOptions:
        """How the files of the source are chosen and decoded, and where their labels are."""
        return replace(super().source_options, label=self.label)

    @property
    def evaluated_as(self) -> list[str]:
        """The path."""
        return [self.path]

    @property
    def _replacements(self) -> tuple[str, ...]:
        """Splits that count as test where the default one does not exist."""
        return tuple(name for name in TEST_SPLITS if name != self.split) if self.test_split == TEST_SPLITS[0] else ()

    def _without(self, reason: str) -> Probes:
        if rank() == 0:
            log.warning("nothing is evaluated: %s, or name labeled splits in --data.probe_sets", reason)
        return {}

    def _name(self) -> str:
        """The name of the folder or file without its ending."""
        first = self.path if is_downloaded(self.path) else sources_at(self.path)[0]
        name = Path(first).name if "://" in first else Path(first).resolve().name
        return name.split(".")[0] or "images"
