"""ProbeSet: a labeled pair of splits on which a run is evaluated."""

import logging
import os
from dataclasses import dataclass, replace

import torch

from ssl_lightning.data.built_in import open_digits, open_synthetic
from ssl_lightning.data.class_names import class_differences, joined_classes, relabeled
from ssl_lightning.data.dataset import ImageDataset, SelectedImages
from ssl_lightning.data.options import DEFAULT_OPTIONS, SourceOptions
from ssl_lightning.data.packs import open_labelled, splits
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.processes import rank
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeSet:
    """Labeled images for the evaluation of frozen features.

    Attributes:
        train: The split on which probes are fitted: `<folder or tar file>/<split>`, such as `cifar10.tar.xz/train`, or
            `digits/train` or `synthetic/train`.
        test: The split on which they are evaluated, such as `cifar10.tar.xz/test`. Classes are joined by name.
        image_size: Side of the center view in pixels; null for that of the data.
        include: Globs: only files that match one of them are images, as in `data.include`.
        exclude: Globs: files that match one of them are no images.
        label: For tables, the column of labels; null for the usual names.
    """

    train: str
    test: str
    image_size: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    label: str | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise UsageError(
                f"found image_size={self.image_size} of the probe set {self.test}; expected at least 1, or null for "
                "that of the data"
            )

    @property
    def splits(self) -> tuple[str, str]:
        """Both splits."""
        return self.train, self.test

    def open(self, options: SourceOptions = DEFAULT_OPTIONS) -> tuple[ImageDataset, ImageDataset]:
        """Open both splits.

        Args:
            options: Of the data of the run. Patterns of file names are those of the probe set.

        Raises:
            DataError: If a split is missing or has images without a label.
        """
        own = replace(options, selection=Selection(self.include, self.exclude), label=self.label)
        train, test = (_open_split(split, own) for split in self.splits)
        return train, test


def described_probe_sets(probe_sets: dict[str, ProbeSet], sources: list[str]) -> str:
    """One line: what is evaluated, and whether none of it is of the training images.

    Args:
        probe_sets: Probe sets by name, the primary one first.
        sources: Paths or names of the training images.
    """
    if not probe_sets:
        return "nothing is evaluated: data.probe_sets is empty; it takes labeled splits, --data.probe_sets"
    found = ", ".join(f"{name} ({probe_set.test})" for name, probe_set in probe_sets.items())
    packs = {_comparable(split.rstrip("/").rpartition("/")[0]) for each in probe_sets.values() for split in each.splits}
    own = [source for source in sources if _comparable(source) in packs]
    others = f"; no probe set is of the training images, data.path={' '.join(sources)}" if sources and not own else ""
    return f"evaluated on {found}{others}"


def _comparable(path: str) -> str:
    """A path without what does not change it."""
    return os.path.normpath(os.path.expanduser(path))


def joined_by_name(name: str, train: ImageDataset, test: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """Both splits of a probe set with one class list: that of train, then classes that only test has.

    Classes of one split only are logged in one line. Images of a class that only test has count as wrong for linear and
    k-NN probes; few-shot episodes take the classes of test.

    Args:
        name: Name of the probe set.
        train: The training split.
        test: The test split.
    """
    if _are_the_same(train, test) and rank() == 0:
        log.warning(
            "probe set %s: train and test are the same %d images (%s): accuracies are of images that the probes were "
            "fitted on; give another split",
            *(name, len(train), train.name(0)),
        )
    differences = class_differences(_present(train), _present(test))
    if differences and rank() == 0:
        log.warning("probe set %s: %s", name, _reported(differences, _present(train), _present(test)))
    if train.classes == test.classes:
        return train, test
    joined = joined_classes([train.classes, test.classes])
    return _with_classes(train, joined), _with_classes(test, joined)


def _are_the_same(train: ImageDataset, test: ImageDataset) -> bool:
    """Whether two splits have equal labels and the same first, middle and last image."""
    rows = torch.tensor([0, len(train) // 2, len(train) - 1]).unique()
    if not len(train) or not torch.equal(train.labels, test.labels):
        return False
    same_names = all(train.name(row) == test.name(row) for row in rows.tolist())
    return same_names and all(map(torch.equal, train.read(rows)[0], test.read(rows)[0]))


def _present(dataset: ImageDataset) -> list[str]:
    """The classes of which there is an image."""
    return [dataset.classes[label] for label in dataset.labels.unique().tolist() if label != UNLABELLED]


def _reported(differences: str, train: list[str], test: list[str]) -> str:
    found = f"{len(train)} classes in train, {len(test)} in test; {differences}"
    if len(joined_classes([train, test])) < len(train) + len(test):
        return found
    return f"{found}; no class in common: linear and k-NN probes are not evaluated (NaN), few-shot episodes are"


def _with_classes(dataset: ImageDataset, joined: list[str]) -> ImageDataset:
    labels = relabeled(dataset.labels, dataset.classes, joined)
    return SelectedImages(dataset, torch.arange(len(dataset)), labels, joined)


def _open_split(split: str, options: SourceOptions) -> ImageDataset:
    dataset = open_split(split, options)
    without = int((dataset.labels == UNLABELLED).sum())
    if without:
        raise DataError(
            f"found {without} of {len(dataset)} images without a label in the probe set {split}; expected a label "
            "for each: give a labeled split in data.probe_sets"
        )
    return dataset


def open_split(split: str, options: SourceOptions) -> ImageDataset:
    """The images of a split as a probe set names it, with or without labels.

    Args:
        split: `<folder or tar file>/<split>`, `digits/<split>` or `synthetic/<split>`.
        options: How they are decoded.

    Raises:
        UsageError: For a name without a split.
        DataError: If nothing is found.
    """
    pack, _, part = split.rstrip("/").rpartition("/")
    if not pack or not part:
        raise UsageError(f"found probe set {split!r}; expected <folder or tar file>/<split>")
    if pack == "digits":
        return open_digits(part)
    if pack == "synthetic":
        return open_synthetic(part)
    inside = splits(split) if os.path.isdir(split) else []
    if "train" in inside and {"test", "val", "valid"} & set(inside):  # CIFAR-100 has a class "train"
        raise UsageError(
            f"found probe set {split!r}; expected <folder or tar file>/<split>, such as {split.rstrip('/')}/train"
        )
    return open_labelled(pack, part, options)
