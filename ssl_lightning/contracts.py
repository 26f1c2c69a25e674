"""The contract of the data: what methods and callbacks may use of a run's data module, and how they reach it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.errors import UsageError
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.types import Batch, RawBatch

_NAMED = 5


@dataclass(frozen=True)
class SourceReport:
    """How many images a source has, and which files are left out.

    Attributes:
        path: The folder, file or name of the source.
        found: Number of images, unreadable ones included.
        skipped: Names of the files that are not images, by reason.
        unreadable: Names of the images that cannot be read as far as known, by reason.
        notes: Further sentences about the images.
    """

    path: str
    found: int
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unreadable: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def plain(self) -> dict[str, Any]:
        """Counts and the first five names for each reason, for `run.json`."""
        groups = {"skipped": self.skipped, "unreadable": self.unreadable}
        named = {
            group: {reason: {"count": len(names), "first": list(names[:_NAMED])} for reason, names in reasons.items()}
            for group, reasons in groups.items()
        }
        return {"path": self.path, "found": self.found, **named, "notes": list(self.notes)}

    def line(self) -> str:
        """One line for the console and the report."""
        parts = [f"{self.found} image{'' if self.found == 1 else 's'} in {self.path}"]
        if self.skipped:
            parts.append(self.skipped_line())
        if self.unreadable:
            parts.append(f"{_total(self.unreadable)} cannot be read: {_by_reason(self.unreadable)}")
        return "; ".join([*parts, *self.notes])

    def skipped_line(self) -> str:
        """The part of the line about files that are not images."""
        return f"{_total(self.skipped)} files skipped: {_by_reason(self.skipped)}"


def _total(groups: Mapping[str, Sequence[str]]) -> int:
    return sum(len(names) for names in groups.values())


def _by_reason(groups: Mapping[str, Sequence[str]]) -> str:
    """Counts by reason with a name each, the most frequent reason first."""
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    parts = [f"{len(names)} {reason} ({_shown(names[0])})" for reason, names in ordered[:_NAMED]]
    rest = sum(len(names) for _, names in ordered[_NAMED:])
    return ", ".join(parts) + (f", {rest} for other reasons" if rest else "")


def _shown(name: str) -> str:
    """A file name in UTF-8 on one line; other bytes are escaped."""
    return " ".join(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").split())


class ImageTable(ABC):
    """The images of one source in a fixed order, with what is known of each.

    Attributes:
        labels: Class of each row, `UNLABELLED` where it has none.
        sample_ids: Permanent id of each row within its source.
        classes: Names of the classes; empty without labels.
    """

    labels: Int[Tensor, "N"]
    sample_ids: Int[Tensor, "N"]
    classes: list[str]

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Path or member name of each row."""

    @abstractmethod
    def fingerprint_as(self, other: str | None) -> str:
        """The fingerprint in the form of `other`, which may be from a file that was written before content counted."""

    @abstractmethod
    def select(self, rows: Int[Tensor, "M"]) -> "ImageTable":
        """These rows alone, renumbered from 0 in the given order."""

    @abstractmethod
    def read(self, rows: Int[Tensor, "B"]) -> tuple[Any, Any]:
        """The images of these rows, and which of them are readable."""


class TrainingData(ABC):
    """What methods and callbacks may use of the data of a run. `ssl_lightning.data.ImageModule` implements it.

    Attributes:
        seed: Of everything that is a function of the data: order, views, clusterings.
        batch_size: Rows of a training batch over all processes together, before accumulation.
    """

    seed: int
    batch_size: int

    @property
    @abstractmethod
    def num_samples(self) -> int:
        """N, the number of training images."""

    @property
    @abstractmethod
    def num_views(self) -> int:
        """V, views of each image in a training batch."""

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """Training batches of one epoch, before accumulation."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """Image size, mean and standard deviation of the data."""

    @property
    @abstractmethod
    def training(self) -> ImageTable:
        """The training images."""

    @property
    @abstractmethod
    def probes(self) -> Mapping[str, tuple[ImageTable, ImageTable]]:
        """Training and test images of each probe set, the primary one first."""

    @property
    def is_balanced(self) -> bool:
        """Whether epochs are sampled over the clusters of a file; a method must not call `set_labels` then."""
        return False

    @property
    def source_reports(self) -> list[SourceReport]:
        """How many images each source and probe set has, and which files are left out."""
        return []

    @property
    @abstractmethod
    def labels(self) -> Int[Tensor, "N"]:
        """The classes of the training images, for diagnostics; no self-supervised loss takes them as input."""

    @property
    def class_sizes(self) -> Mapping[str, int]:
        """Number of training images of each class by its name, for evaluation; empty where labels are unknown."""
        return {}

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the training images and their order."""

    @abstractmethod
    def fingerprint_as(self, other: str | None) -> str:
        """The fingerprint in the form of `other`, which may be from a file that was written before content counted."""

    @property
    @abstractmethod
    def masked(self) -> int:
        """Unreadable images of this process so far in this epoch."""

    @property
    @abstractmethod
    def masked_share(self) -> float:
        """Their share of this process's images so far in this epoch."""

    @property
    def loading_seconds(self) -> float:
        """Time in which this process has waited for training images so far."""
        return 0.0

    @abstractmethod
    def note_unreadable(self, rows: list[int]) -> None:
        """Log the rows that a pass over all training images could not read.

        Raises:
            DataError: For more rows than the data allow.
        """

    def note_unreadable_in_probe_sets(self) -> int:
        """Log the images that the last pass over the probe sets could not read, and return their number.

        All processes call it.

        Raises:
            DataError: For more images of a split than the data allow.
        """
        return 0

    @abstractmethod
    def set_labels(self, labels: Int[Tensor, "N"] | None) -> None:
        """Sample the next epochs uniformly over these pseudo-labels; None for the natural frequencies."""

    @abstractmethod
    def predict_dataloader(self, rows: Int[Tensor, "M"] | None = None) -> Iterable[RawBatch]:
        """This process's block of the training images, in row order; of some rows in their order, if given."""

    @abstractmethod
    def views_dataloader(self) -> Iterable[RawBatch]:
        """This process's share of the training images in a random order, every row once."""

    @abstractmethod
    def augment(self, raw: RawBatch, epoch: int) -> Batch:
        """The training views of the readable images in an epoch."""

    @abstractmethod
    def center(self, raw: RawBatch, image_size: int | None = None) -> Batch:
        """The center view of the readable images."""

    def image_sizes(self, stage: str) -> list[int]:
        """Sides in pixels of the images that a stage gives to the network, without repetition.

        Args:
            stage: fit, validate, test or predict.
        """
        return [self.preprocessing.image_size]

    @abstractmethod
    def teardown(self, stage: str) -> None:
        """End the worker processes."""


def has_training_data(trainer: object) -> bool:
    """Whether the data module of a trainer keeps the contract; plain loaders and other data modules do not."""
    return isinstance(getattr(trainer, "datamodule", None), TrainingData)


def data_of(trainer: pl.Trainer) -> TrainingData:
    """The data module of a trainer.

    Raises:
        UsageError: If there is none, or it does not keep the contract.
    """
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, TrainingData):
        return data
    found = "no data module" if data is None else f"the data module {type(data).__name__}"
    raise UsageError(
        f"found {found} in the trainer; expected one of ssl_lightning.data, or a class that implements "
        "ssl_lightning.contracts.TrainingData: give it as datamodule"
    )
