"""Files about the rows of a dataset, made for its fingerprint: stage files, and lists with a column of sample ids."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import DataError, UsageError

STAGE, LIST = ".safetensors", ".parquet"


def kind_of(path: str, option: str) -> str:
    """The ending of a file about rows: `STAGE` or `LIST`.

    Args:
        path: The file.
        option: The option that names it, for the error.

    Raises:
        UsageError: If it is neither.
        DataError: If there is no file.
    """
    if not Path(path).is_file():
        raise DataError(f"{option}={path} not found: run the stage that writes it, or fix the path")
    if Path(path).suffix not in (STAGE, LIST):
        raise UsageError(f"{option}={path} is neither .safetensors nor .parquet: give one of these")
    return Path(path).suffix


def reject_other_data(path: str, made_for: str | None, dataset: ImageDataset) -> None:
    """Reject a file that was made for other images.

    Args:
        path: The file.
        made_for: The fingerprint in it; None if it has none.
        dataset: The images.

    Raises:
        DataError: If the fingerprints differ.
    """
    if made_for not in (None, dataset.fingerprint_as(made_for)):
        raise DataError(
            f"{path} was made for data {made_for[:12]}, found {dataset.fingerprint[:12]}: "
            "give the same data, or make the file again"
        )


def reject_other_length(path: str, found: int, dataset: ImageDataset) -> None:
    """Reject a file with another number of rows than the images, with a DataError."""
    if found != len(dataset):
        raise DataError(f"{path} has {found} rows, the data {len(dataset)}: give the data it was made for")


def rows_of_ids(path: str, ids: np.ndarray, dataset: ImageDataset) -> Int[Tensor, "M"]:
    """The row of each sample id of a list.

    Args:
        path: The list, for the error.
        ids: Its sample ids.
        dataset: The images.

    Raises:
        DataError: For ids that the images do not have.
    """
    own = dataset.sample_ids.numpy()
    order = np.argsort(own, kind="stable")
    places = np.searchsorted(own[order], ids).clip(max=len(own) - 1)
    rows = order[places]
    strange = ids[own[rows] != ids]
    if len(strange):
        raise DataError(
            f"{path} lists sample {strange[0]} and {len(strange) - 1} more that the data do not have: "
            "give the data it was made for"
        )
    return torch.from_numpy(rows)
