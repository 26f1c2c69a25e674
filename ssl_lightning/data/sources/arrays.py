"""Images in arrays of NumPy and HDF5 files, N x H x W or N x H x W x C: the table of their rows, and reading by row."""

import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.sources.array_names import ArraysOfFile
from ssl_lightning.data.sources.block_size import LARGEST_BLOCK
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.container import Container
from ssl_lightning.data.sources.found import selected
from ssl_lightning.data.sources.hdf5 import Hdf5Arrays
from ssl_lightning.data.sources.labels import ANY_LABEL, LABELS, listed, numbered
from ssl_lightning.data.sources.numpy_files import NumpyArrays
from ssl_lightning.data.sources.paths import divided
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.data.sources.tiff_rows import as_tiff, header_size, stored_type
from ssl_lightning.errors import DataError
from ssl_lightning.progress import progress

log = logging.getLogger(__name__)
ENDINGS = (".npy", ".npz", ".h5", ".hdf5")
_CHANNELS = (1, 3, 4)
_SPLIT = re.compile(r"(/?)(?:(?P<a>\w+?)_images?|(?P<b>\w+?)_x|[xX]_(?P<c>\w+))\Z")
_LABELS_OF = ((re.compile(r"images(?=\Z)"), "labels"), (re.compile(r"image(?=\Z)"), "label"))
_LABELS_OF += ((re.compile(r"(?<=/)x_|\A[xX]_"), "y_"), (re.compile(r"_x\Z"), "_y"))
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class ImageStack:
    """An array of images.

    Attributes:
        array: Of shape N x H x W, N x H x W x C or N x C x H x W, or of N encoded images.
        first: Whether channels come first.
        encoded: Whether a row is the bytes of a file.
    """

    array: Any
    first: bool
    encoded: bool = False

    def __len__(self) -> int:
        return len(self.array)

    def row(self, row: int) -> bytes:
        """The bytes of a file of one image."""
        pixels = np.asarray(self.array[row])
        if self.encoded:
            return pixels.tobytes()
        if pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, 2) if self.first else pixels
            pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        return as_tiff(pixels)

    def sizes(self, title: str) -> np.ndarray:
        """The number of bytes of each file."""
        if self.encoded:
            starts = progress(range(0, len(self), _AT_ONCE), title, "blocks")
            parts = [[len(row) for row in self.array[start : start + _AT_ONCE]] for start in starts]
            return np.array([size for part in parts for size in part], dtype=np.int64)
        pixels = int(np.prod(self.array.shape[1:], dtype=object))
        channels = 1 if self.array.ndim == 3 else self.array.shape[1 if self.first else 3]
        return np.full(len(self), header_size(channels) + pixels * stored_type(self.array.dtype).itemsize)


class ArrayFile(Container):
    """An array of a NumPy or HDF5 file. A row is given out as an uncompressed TIFF file."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        try:
            self.stack = _stack(path)
        except DataError as error:
            raise OSError(str(error)) from error

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes of a file of the image of a row."""
        if not 0 <= offset < len(self.stack):
            raise OSError(f"{self.path} has no row {offset}")
        try:
            return self.stack.row(offset)
        except (RuntimeError, ValueError, MemoryError) as error:
            raise OSError(f"{self.path}, row {offset}: {error}") from error


def array_table(source: str, selection: Selection, label: str | None) -> ByteTable:
    """The images of an array, in the order of its rows.

    Args:
        source: The file, with the name of the array after a colon where there are several.
        selection: Patterns of names, which are the numbers of rows.
        label: Name of the array of labels; `ANY_LABEL` for the usual ones.

    Raises:
        DataError: If it cannot be read, or has no array of images, or more than one.
        UsageError: If h5py is needed and not installed.
    """
    path, name = _named(source)
    whole = f"{path}:{name}" if name else path
    stack = _stack(whole)
    if stack.first:
        log.info("%s has channels first, %s: they are moved to the end", whole, _shape(stack.array))
    count = len(stack)
    labels, classes = _labels(path, name, count, label)
    names, zeros = PackedNames([str(row) for row in range(count)]), np.zeros(count, dtype=np.int32)
    sizes = stack.sizes(f"listing {path}")
    table = ByteTable([whole], zeros, names, np.arange(count), sizes, labels=labels, classes=classes)
    return selected(table, selection)


def array_splits(source: str) -> dict[str, list[str]]:
    """The arrays of each split, such as `train_images` (as in MedMNIST) or `x_train`; empty for other files."""
    path, named = divided(source)
    if named or Path(path).suffix.lower() not in ENDINGS[1:]:
        return {}
    matches = {name: _SPLIT.match(name) for name in arrays_of(path).names}
    found = {name: next(filter(None, match.group("a", "b", "c"))) for name, match in matches.items() if match}
    return {split: [f"{path}:{name}"] for name, split in sorted(found.items(), key=lambda item: item[1])}


def arrays_of(path: str) -> ArraysOfFile:
    """The arrays of a file by name.

    Raises:
        DataError: If it cannot be read.
    """
    if Path(path).suffix.lower() in (".npy", ".npz"):
        return _numpy(path, *_status(path))
    return _hdf5(path, os.getpid(), *_status(path))


@lru_cache(maxsize=4)
def _numpy(path: str, time: int, size: int) -> NumpyArrays:
    """Workers inherit what is unpacked in memory."""
    return NumpyArrays(path)


@lru_cache(maxsize=4)
def _hdf5(path: str, process: int, time: int, size: int) -> Hdf5Arrays:
    """One handle for each process: the library does not survive a fork."""
    return Hdf5Arrays(path)


def _status(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its disk") from error
    return status.st_mtime_ns, status.st_size


def _named(source: str) -> tuple[str, str]:
    """The file, and the name of its array of images."""
    path, named = divided(source)
    arrays = arrays_of(path)
    if named:
        name = named if named.startswith("/") or not isinstance(arrays, Hdf5Arrays) else f"/{named}"
        if name not in arrays.names:
            raise DataError(f"{path} has no array {named!r}; expected one of {listed(arrays.names)}: fix the path")
        return path, name
    found = [name for name in arrays.names if _could_be_images(arrays.array(name))]
    if len(found) == 1:
        return path, found[0]
    if found:
        raise DataError(f"{path} has the image arrays {listed(found)}; expected one: give {path}:{found[0]}")
    shapes = ", ".join(f"{name or 'array'} {_shape(arrays.array(name))}" for name in arrays.names[:4])
    raise DataError(f"{path} has {shapes or 'no array'}; expected images, N x H x W or N x H x W x C")


def _stack(source: str) -> ImageStack:
    path, name = divided(source)
    arrays = arrays_of(path)
    if name not in arrays.names:
        raise DataError(f"{path} has no array {name!r}")
    array = arrays.array(name)
    if _is_encoded(array):
        return ImageStack(array, first=False, encoded=True)
    found = f"{source} is an array of {_shape(array)} {array.dtype}"
    if not _could_be_images(array):
        raise DataError(f"{found}; expected images, N x H x W or N x H x W x C: reshape it")
    if int(np.prod(array.shape[1:], dtype=object)) * 4 > LARGEST_BLOCK:
        raise DataError(f"{found}; expected images of at most {LARGEST_BLOCK:,} bytes")
    if array.ndim == 3:
        if array.shape[2] in _CHANNELS:
            raise DataError(f"{found}, which may be one image; expected N x H x W: save it as array[None]")
        return ImageStack(array, first=False)
    last, first = array.shape[3] in _CHANNELS, array.shape[1] in _CHANNELS
    if last == first:
        fix = (
            "channels may be first or last: save it with the array" if last else "expected 1, 3 or 4 channels: save it"
        )
        raise DataError(f"{found}; {fix} as N x H x W x C")
    channels = array.shape[3 if last else 1]
    if channels > 1 and (array.dtype.kind != "u" or array.dtype.itemsize > 2):
        raise DataError(f"{found}; expected color as uint8 or uint16: save (255 * array).round().astype('uint8')")
    return ImageStack(array, first=first)


def _could_be_images(array: Any) -> bool:
    return _is_encoded(array) or (len(array.shape) in (3, 4) and array.dtype.kind in "buif" and array.shape[0] > 0)


def _is_encoded(array: Any) -> bool:
    """Whether each row holds a number of bytes of its own."""
    kind = (array.dtype.metadata or {}).get("vlen")
    return len(array.shape) == 1 and isinstance(kind, type | np.dtype) and kind not in (str, bytes) and kind == np.uint8


def _labels(path: str, name: str, count: int, label: str | None) -> tuple[np.ndarray | None, list[str]]:
    if label is None:
        return None, []
    arrays = arrays_of(path)
    if label == ANY_LABEL:
        folder = name.rpartition("/")[0] + "/" if "/" in name else ""
        paired = [pattern.sub(other, name) for pattern, other in _LABELS_OF if pattern.search(name)]
        usual = [*paired, *(folder + each for each in (*LABELS, "y", "targets"))]
        chosen = next((each for each in usual if each in arrays.names), None)
        if chosen is None:
            return None, []
    else:
        chosen = label if label in arrays.names else f"/{label}"
        if chosen not in arrays.names:
            raise DataError(f"{path} has no array {label!r}; expected data.label of {listed(arrays.names)}")
    values = np.asarray(arrays.array(chosen)[()])
    if values.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{path} has labels {chosen} of shape {_shape(values)}; expected one for each of {count} images"
        )
    plain = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values.ravel().tolist()]
    return numbered(plain, None, path)


def _shape(array: Any) -> str:
    return " x ".join(map(str, array.shape)) or "a number"
