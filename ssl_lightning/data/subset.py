"""Subset: training rows that are selected by a column of a file, such as one cluster of an earlier stage."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import load_labels
from ssl_lightning.clustering.list_file import KEPT, column_names, read_list
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.row_files import STAGE, kind_of, reject_other_data, reject_other_length, rows_of_ids
from ssl_lightning.errors import UsageError


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
        reader = self._of_stage if kind_of(self.path, "subset.path") == STAGE else self._of_list
        return dataset.select(reader(dataset))

    def _of_stage(self, dataset: ImageDataset) -> Int[Tensor, "M"]:
        if self.column != "cluster":
            raise UsageError(f"subset.column={self.column!r} is not in {self.path}, only 'cluster': give that")
        labels, metadata = load_labels(self.path)
        reject_other_data(self.path, metadata.get("data"), dataset)
        reject_other_length(self.path, len(labels), dataset)
        return self._chosen(labels.long(), torch.arange(len(dataset)))

    def _of_list(self, dataset: ImageDataset) -> Int[Tensor, "M"]:
        column = self.column if self.value is not None else KEPT if KEPT in column_names(self.path) else None
        names = list(dict.fromkeys(["sample_id", column or "sample_id"]))
        columns, made_for = read_list(self.path, names, len(dataset))
        reject_other_data(self.path, made_for, dataset)
        rows = rows_of_ids(self.path, columns["sample_id"], dataset)
        values = np.zeros(len(rows)) if column is None else columns[column].copy()
        if column == KEPT and self.value is None:
            values -= 1  # 0 for kept rows, below for others
        return self._chosen(torch.from_numpy(values).long(), rows)

    def _chosen(self, values: Int[Tensor, "M"], rows: Int[Tensor, "M"]) -> Int[Tensor, "_m"]:
        keep = values >= 0 if self.value is None else values == self.value
        if not bool(keep.any()):
            there = ", ".join(map(str, values.unique().tolist()[:10]))
            raise UsageError(f"no row of {self.path} has {self.column}={self.value}; found {there}: give one of these")
        return rows[keep].unique()  # sorted and distinct
