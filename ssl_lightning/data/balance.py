"""Balance: sampling that is even over the clusters of a file, for any method."""

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import load_labels
from ssl_lightning.clustering.list_file import read_list
from ssl_lightning.data.dataset import ImageDataset, SelectedImages
from ssl_lightning.data.order import expected_samples
from ssl_lightning.data.row_files import STAGE, kind_of, reject_other_data, reject_other_length, rows_of_ids
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Balance:
    """Every epoch samples the training images evenly over clusters that a file has, see `balanced_order`.

    An epoch has as many samples as without it, so images of small clusters occur several times in an epoch, each time
    with views of their own, and not all images of large ones do. Images without a cluster are never sampled.

    Attributes:
        path: A stage file (`.safetensors`, its labels are the column "cluster"), or a list with the columns `sample_id`
            and `column` (`.parquet`): the clusters of `predict`, or a subset file of `data curate`. It is made for the
            training images, or for all images of the source of a subset.
        column: The column of the clusters; "group" in subset files. Negative values mean no cluster, and so does a
            sample that a list does not have.
        power: 1 for equal shares of all clusters, 0.5 for shares by the square root of their sizes, 0 for those that
            they have.
    """

    path: str
    column: str = "cluster"
    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise UsageError(f"found data.balance.power={self.power}; expected 0 (as it is) to 1 (even)")

    def labels_of(self, dataset: ImageDataset) -> Int[Tensor, "N"]:
        """The cluster of each training image, `UNLABELLED` for none.

        Raises:
            UsageError: If the file is of neither kind, or has no such column.
            DataError: If the file is missing, damaged, changed, or made for other images, or no image has a cluster.
        """
        is_stage = kind_of(self.path, "data.balance.path") == STAGE
        labels = self._of_stage(dataset) if is_stage else self._of_list(dataset)
        if not bool((labels != UNLABELLED).any()):
            raise DataError(f"found no image with a cluster in {self.path}; expected at least one: give another file")
        return labels

    def _of_stage(self, dataset: ImageDataset) -> Int[Tensor, "N"]:
        if self.column != "cluster":
            raise UsageError(f"data.balance.column={self.column!r} is not in {self.path}, only 'cluster': give that")
        labels, metadata = load_labels(self.path)
        made_for, rows = self._counterpart(metadata.get("data"), dataset)
        reject_other_length(self.path, len(labels), made_for)
        return labels.long()[rows]

    def _of_list(self, dataset: ImageDataset) -> Int[Tensor, "N"]:
        columns, data = read_list(self.path, ["sample_id", self.column], len(_source(dataset)))
        made_for, rows = self._counterpart(data, dataset)
        labels = torch.full((len(made_for),), UNLABELLED)
        values = torch.from_numpy(columns[self.column].copy()).clamp(min=UNLABELLED)
        labels[rows_of_ids(self.path, columns["sample_id"], made_for)] = values
        return labels[rows]

    def _counterpart(self, made_for: str | None, dataset: ImageDataset) -> tuple[ImageDataset, Int[Tensor, "N"]]:
        """The images that the file was made for, and the place of each training image among them."""
        source = _source(dataset)
        if source is not dataset and made_for not in (None, dataset.fingerprint_as(made_for)):
            reject_other_data(self.path, made_for, source)
            assert isinstance(dataset, SelectedImages)
            return source, dataset.rows
        reject_other_data(self.path, made_for, dataset)
        return dataset, torch.arange(len(dataset))


def _source(dataset: ImageDataset) -> ImageDataset:
    """The images that a subset selects from."""
    return dataset.dataset if isinstance(dataset, SelectedImages) else dataset


def described(balance: Balance, labels: Int[Tensor, "N"], num_random: int) -> str:
    """One line: the clusters, and how often their images appear in an epoch.

    Args:
        balance: The file.
        labels: The cluster of each training image.
        num_random: Samples of an epoch.
    """
    sizes = labels[labels != UNLABELLED].unique(return_counts=True)[1]
    often = expected_samples(sizes, num_random, balance.power) / sizes
    without = int((labels == UNLABELLED).sum())
    parts = [
        f"balanced over {len(sizes)} cluster{'' if len(sizes) == 1 else 's'} of {balance.path}: largest "
        f"{int(sizes.max())}, smallest {int(sizes.min())} images",
        f"images appear {float(often.min()):.2g} to {float(often.max()):.2g} times an epoch",
    ]
    if balance.power < 1:
        parts.append(f"power {balance.power:g}")
    if without:
        parts.append(f"{without} images without a cluster are never sampled")
    return "; ".join(parts)
