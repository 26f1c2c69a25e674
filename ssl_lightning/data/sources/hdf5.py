"""Datasets of an HDF5 file by path, through h5py, which is an extra."""

from typing import Any

import numpy as np

from ssl_lightning.data.sources.array_names import ArraysOfFile
from ssl_lightning.data.sources.block_size import LARGEST_BLOCK
from ssl_lightning.errors import DataError, UsageError


class Hdf5Arrays(ArraysOfFile):
    """The datasets of a file by their paths with a slash in front. Links to other files are not followed.

    Raises:
        UsageError: If h5py is not installed.
        DataError: If the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        try:
            import h5py  # an extra
        except ImportError as error:
            raise UsageError(f"{path} needs h5py: pip install 'ssl-lightning[hdf5]'") from error
        self.path = path
        self._is_dataset = h5py.Dataset
        self._names: list[str] = []
        try:
            self.file = h5py.File(path, "r")
            self.file.visititems(self._visit)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            found = str(error).splitlines()[0][:200]
            raise DataError(f"{path} cannot be read as HDF5 ({found}): make or copy it again") from error

    def array(self, name: str) -> Any:
        """Open a dataset."""
        try:
            found = self.file[name]
        except (OSError, RuntimeError, ValueError) as error:
            raise KeyError(name) from error
        if not isinstance(found, self._is_dataset):
            raise KeyError(name)
        if found.file.filename != self.file.filename or found.external or found.is_virtual:
            raise DataError(
                f"{self.path} refers to another file in {name}, which is not read: copy the dataset into it"
            )
        if found.chunks and int(np.prod(found.chunks, dtype=object)) * found.dtype.itemsize > LARGEST_BLOCK:
            raise DataError(
                f"{self.path} has chunks of more than {LARGEST_BLOCK:,} bytes in {name}: write smaller ones"
            )
        return found

    @property
    def names(self) -> list[str]:
        """The paths of the datasets."""
        return self._names

    def _visit(self, name: str, found: Any) -> None:
        if isinstance(found, self._is_dataset):
            self._names.append(f"/{name}")
