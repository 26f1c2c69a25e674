"""Encoded images in folders and tar files, decoded on reading."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from ssl_lightning.data.dataset import ImageDataset, Images, InMemoryImages
from ssl_lightning.data.decode import decode
from ssl_lightning.data.file_notes import notes_of
from ssl_lightning.data.fingerprint import BY_CONTENT, digest, of_files
from ssl_lightning.data.limits import Unreadable
from ssl_lightning.data.options import DEFAULT_OPTIONS, SourceOptions
from ssl_lightning.data.reasons import explained
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.progress import progress

_LARGEST_IN_MEMORY = 2 << 30
_TRIED_FIRST = 64


class StoredImages(ImageDataset):
    """Images of any size that are decoded when they are read.

    Args:
        table: Locations of their bytes.
        labels: Class of each row.
        classes: Names of the classes.
        sample_ids: Permanent ids.
        options: How they are decoded.
    """

    def __init__(
        self,
        table: ByteTable,
        labels: Int[Tensor, "N"],
        classes: list[str],
        sample_ids: Int[Tensor, "N"],
        options: SourceOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.options = options
        self.table = table
        self.labels = labels
        self.classes = classes
        self.sample_ids = sample_ids
        self.size = None
        more = len(table.containers) - 1
        self.title = table.containers[0] + (f" and {more} more" if more else "")

    def read(self, rows: Int[Tensor, "B"]) -> tuple[Images, Bool[Tensor, "B"]]:
        """Return the images of these rows, and which of them could be read; unreadable ones are zeros."""
        found = [self._decoded(row) for row in rows.tolist()]
        valid = torch.tensor([not isinstance(image, str) for image in found], dtype=torch.bool)
        return [torch.zeros(3, 1, 1, dtype=torch.uint8) if isinstance(image, str) else image for image in found], valid

    def name(self, row: int) -> str:
        """Path or member name of a row, for messages."""
        return self.table.name(row)

    @property
    def skipped(self) -> Mapping[str, Sequence[str]]:
        """Names of the files of the source that are no images, by reason."""
        return self.table.skipped

    def notes(self) -> list[str]:
        """Sentences about pages that are left out and gray levels that are lost."""
        return self._notes

    @cached_property
    def _notes(self) -> list[str]:
        return notes_of(self.table, self.options)

    def reason(self, row: int) -> str:
        """The reason why a row cannot be read, by reading it."""
        found = self._decoded(row)
        return found if isinstance(found, str) else "readable at the second attempt"

    def make_fingerprint(self) -> str:
        """SHA-256 of names, sizes, order and content; of remote files size and version; see `fingerprint`."""
        if self.table.versions:  # of a store, from which everything would have to be copied
            return BY_CONTENT + digest(self.table.fingerprint.encode(), *map(str.encode, self.table.versions))
        return of_files(self.table.fingerprint, self.table.sizes, self.table.read)

    def make_fingerprint_by_names(self) -> str:
        """The same without content."""
        return self.table.fingerprint

    def in_memory(self) -> ImageDataset:
        """All images decoded, if they have one size and fit into 2 GiB; else this dataset."""
        size = self._one_size()
        if size is None or 3 * size[0] * size[1] * len(self) > _LARGEST_IN_MEMORY:
            return self
        images = torch.zeros(len(self), 3, *size, dtype=torch.uint8)
        unreadable: dict[int, str] = {}
        for row, image in enumerate(self._all_decoded()):
            if isinstance(image, str):
                unreadable[row] = image
            elif image.shape[1:] != images.shape[2:]:
                return self
            else:
                images[row] = image
        return InMemoryImages(
            images,
            self.labels,
            self.classes,
            names=replace(self.table, unpacked=None).name,
            sample_ids=self.sample_ids,
            title=self.title,
            unreadable=unreadable,
            skipped=self.table.skipped,
            notes=self.notes,
            fingerprint=self.fingerprint,
            by_names=self.fingerprint_by_names,
        )

    def _one_size(self) -> tuple[int, int] | None:
        """The common size of some evenly spaced images, or None."""
        if len(self) == 0:
            return None
        rows = np.unique(np.linspace(0, len(self) - 1, _TRIED_FIRST).astype(int)).tolist()
        sizes = {(image.shape[1], image.shape[2]) for image in map(self._decoded, rows) if not isinstance(image, str)}
        return sizes.pop() if len(sizes) == 1 else None

    def _all_decoded(self) -> Iterator[UInt8[Tensor, "3 _h _w"] | str]:
        title = f"decoding {os.path.basename(self.table.containers[0])}"
        for row in progress(range(len(self)), title, "images"):
            yield self._decoded(row)

    def _decoded(self, row: int) -> UInt8[Tensor, "3 _h _w"] | str:
        """The image, or the reason why it cannot be read."""
        limits = self.options.limits
        try:
            return decode(self._bytes(row), limits, self.options.window)
        except Unreadable as error:
            return explained(error.reason, limits)
        except OSError:
            return "missing or locked"

    def _bytes(self, row: int) -> bytes:
        try:
            return self.table.read(row)
        except OSError:  # retry once after a transient error of the disk or the network
            return self.table.read(row)
