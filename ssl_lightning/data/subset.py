"""Subset: training rows that are selected by a column of a file, such as one cluster of an earlier stage."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import load_labels
from ssl_lightning.clustering.list_file import KEPT, column_names, read_list
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import DataError, UsageError


@dataclass(frozen=True)
class Subset:
    """A selection of the training images of a run; rows are renumbered in their old order.

    Attributes:
        path: A stage file (`.safetensors`, its labels are the column "cluster") or a list with a column `sample_id`
            (`.parquet`), such as the subset file of `data dedup`.
        column: The column that selects.
        value: Keep rows with this value; null keeps the rows of a subset file that are kept, all rows of another list,
            or all rows with a cluster.
    """

    path: str
    column: str = "cluster"
    value: int | None = None

    def of(self, dataset: ImageDataset) -> ImageDataset:
        """The selected rows of a dataset.

        Raises:
            UsageError: If the file is of neither kind, or has no such column or value.
            DataError: If the file is missing, damaged, changed, or made for other images.
        """
        if not Path(self.path).is_file():
            raise DataError(f"subset.path={self.path} not found: run the stage that writes it, or fix the path")
        readers = {".safetensors": self._of_stage, ".parquet": self._of_list}
        reader = readers.get(Path(self.path).suffix)
        if reader is None:
            raise UsageError(f"subset.path={self.path} is neither .safetensors nor .parquet: give one of these")
        return dataset.select(reader(dataset))

    def _of_stage(self, dataset: ImageDataset) -> Int[Tensor, "M"]:
        if self.column != "cluster":
            raise UsageError(f"subset.column={self.column!r} is not in {self.path}, only 'cluster': give that")
        labels, metadata = load_labels(self.path)
        self._reject_other_data(metadata.get("data"), dataset)
        if len(labels) != len(dataset):
            raise DataError(
                f"{self.path} has {len(labels)} rows, the data {len(dataset)}: give the data it was made for"
            )
        return self._chosen(labels.long(), torch.arange(len(dataset)))

    def _of_list(self, dataset: ImageDataset) -> Int[Tensor, "M"]:
        column = self.column if self.value is not None else KEPT if KEPT in column_names(self.path) else None
        names = list(dict.fromkeys(["sample_id", column or "sample_id"]))
        columns, made_for = read_list(self.path, names, len(dataset))
        self._reject_other_data(made_for, dataset)
        rows = self._rows_of(columns["sample_id"], dataset)
        values = np.zeros(len(rows)) if column is None else columns[column].copy()
        if column == KEPT and self.value is None:
            values -= 1  # 0 for kept rows, below for others
        return self._chosen(torch.from_numpy(values).long(), rows)

    def _rows_of(self, wanted: np.ndarray, dataset: ImageDataset) -> Int[Tensor, "M"]:
        ids = dataset.sample_ids.numpy()
        order = np.argsort(ids, kind="stable")
        places = np.searchsorted(ids[order], wanted).clip(max=len(ids) - 1)
        rows = order[places]
        strange = wanted[ids[rows] != wanted]
        if len(strange):
            raise DataError(
                f"{self.path} lists sample {strange[0]} and {len(strange) - 1} more that the data do not have: "
                "give the data it was made for"
            )
        return torch.from_numpy(rows)

    def _chosen(self, values: Int[Tensor, "M"], rows: Int[Tensor, "M"]) -> Int[Tensor, "_m"]:
        keep = values >= 0 if self.value is None else values == self.value
        if not bool(keep.any()):
            there = ", ".join(map(str, values.unique().tolist()[:10]))
            raise UsageError(f"no row of {self.path} has {self.column}={self.value}; found {there}: give one of these")
        return rows[keep].unique()  # sorted and distinct

    def _reject_other_data(self, made_for: str | None, dataset: ImageDataset) -> None:
        if made_for not in (None, dataset.fingerprint_as(made_for)):
            raise DataError(
                f"{self.path} was made for data {made_for[:12]}, found {dataset.fingerprint[:12]}: "
                "give the same data, or make the file again"
            )
