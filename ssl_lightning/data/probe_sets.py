"""ProbeSet: a labeled pair of splits on which a run is evaluated."""

from dataclasses import dataclass

from ssl_lightning.data.built_in import open_digits, open_synthetic
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.limits import DEFAULT_LIMITS, Limits
from ssl_lightning.data.packs import open_labelled
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.types import UNLABELLED


@dataclass(frozen=True)
class ProbeSet:
    """Labeled images for the evaluation of frozen features.

    Attributes:
        train: The split on which probes are fitted: `<folder or tar file>/<split>`, such as `cifar10.tar.xz/train`, or
            `digits/train` or `synthetic/train`.
        test: The split on which they are evaluated, such as `cifar10.tar.xz/test`; its classes must be the same.
        image_size: Side of the center view in pixels; null for that of the data.
    """

    train: str
    test: str
    image_size: int | None = None

    def open(self, limits: Limits = DEFAULT_LIMITS) -> tuple[ImageDataset, ImageDataset]:
        """Open both splits.

        Args:
            limits: Limits on the cost of decoding one image.

        Raises:
            DataError: If a split is missing or has images without a label, or their classes differ.
        """
        train, test = (_open_split(split, limits) for split in (self.train, self.test))
        if train.classes != test.classes:
            odd = sorted(set(train.classes) ^ set(test.classes))
            raise DataError(
                f"{self.train} has {len(train.classes)} classes and {self.test} {len(test.classes)}; in one only: "
                f"{', '.join(odd[:5])}: give two splits of the same classes"
            )
        return train, test


def _open_split(split: str, limits: Limits) -> ImageDataset:
    dataset = _find_split(split, limits)
    without = int((dataset.labels == UNLABELLED).sum())
    if without:
        raise DataError(
            f"found {without} of {len(dataset)} images without a label in the probe set {split}; expected a label "
            "for each: give a labeled split in data.probe_sets"
        )
    return dataset


def _find_split(split: str, limits: Limits) -> ImageDataset:
    pack, _, part = split.rstrip("/").rpartition("/")
    if not pack or not part:
        raise UsageError(f"found probe set {split!r}; expected <folder or tar file>/<split>")
    if pack == "digits":
        return open_digits(part)
    if pack == "synthetic":
        return open_synthetic(part)
    return open_labelled(pack, part, limits)
