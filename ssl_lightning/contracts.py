"""The contract of the data: what methods and callbacks may use of a run's data module, and how they reach it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.errors import UsageError
from ssl_lightning.models.preprocessing import Preprocessing
from ssl_lightning.types import Batch, RawBatch


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
    @abstractmethod
    def labels(self) -> Int[Tensor, "N"]:
        """The classes of the training images, for diagnostics; no self-supervised loss takes them as input."""

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

    @abstractmethod
    def note_unreadable(self, rows: list[int]) -> None:
        """Log the rows that a pass over all training images could not read.

        Raises:
            DataError: For more rows than the data allow.
        """

    @abstractmethod
    def set_labels(self, labels: Int[Tensor, "N"] | None) -> None:
        """Sample the next epochs uniformly over these pseudo-labels; None for the natural frequencies."""

    @abstractmethod
    def predict_dataloader(self) -> Iterable[RawBatch]:
        """This process's block of the training images, in row order."""

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
