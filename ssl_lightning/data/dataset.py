"""A table of images, index first: `read(rows)` gives exactly those rows, however they lie in memory or on disk."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from ssl_lightning.contracts import ImageTable
from ssl_lightning.data.fingerprint import combined, digest, in_the_form_of
from ssl_lightning.types import UNLABELLED

Images = UInt8[Tensor, "B 3 h w"] | list[UInt8[Tensor, "3 _h _w"]]
"""Many images: one tensor where all have one size, else a list."""


class ImageDataset(ImageTable):
    """The images of one source in a fixed order. A row that cannot be read stays, as an invalid one.

    Attributes:
        labels: The source's own class of each row, `UNLABELLED` where it has none.
        sample_ids: Permanent id of each row within its source.
        classes: Names of the classes, sorted by their bytes; empty without labels.
        size: Height and width where all images are in memory in one size, else None.
    """

    labels: Int[Tensor, "N"]
    sample_ids: Int[Tensor, "N"]
    classes: list[str]
    size: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, rows: Int[Tensor, "B"]) -> tuple[Images, Bool[Tensor, "B"]]:
        """The images of these rows, and which of them could be read; the others are zeros."""

    @abstractmethod
    def name(self, row: int) -> str:
        """Path or member name of a row, for people and messages."""

    @abstractmethod
    def make_fingerprint(self) -> str:
        """Compute what `fingerprint` keeps."""

    @cached_property
    def fingerprint(self) -> str:
        """Which images there are, in which order, and what they hold; the same wherever they lie."""
        return self.make_fingerprint()

    @cached_property
    def fingerprint_by_names(self) -> str:
        """What `fingerprint` was before content was read: of files, by names and sizes; else the same."""
        return self.make_fingerprint_by_names()

    def make_fingerprint_by_names(self) -> str:
        """Compute what `fingerprint_by_names` keeps."""
        return self.fingerprint

    def fingerprint_as(self, other: str | None) -> str:
        """The fingerprint to compare with one from a file, which may be from before content was read."""
        if other == self.fingerprint:
            return self.fingerprint
        return in_the_form_of(other, self.fingerprint, self.fingerprint_by_names)

    @property
    def names(self) -> list[str]:
        """The names of all rows."""
        return [self.name(row) for row in range(len(self))]

    def select(self, rows: Int[Tensor, "M"]) -> "ImageDataset":
        """These rows alone, numbered afresh in the order given."""
        return SelectedImages(self, rows)


class InMemoryImages(ImageDataset):
    """Images of one size, decoded, in memory.

    Args:
        images: All images.
        labels: Class of each row; without it all are unlabelled.
        classes: Names of the classes.
        title: What the rows are called in messages, followed by their number, where there are no names.
        names: Gives the path or member name of a row.
        sample_ids: Permanent ids; without them the rows' numbers.
        readable: False for a row that could not be read.
        fingerprint: Of the files that the images were made of; without it that of their pixels.
        by_names: Of the files' names and sizes alone.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "N 3 h w"],
        labels: Int[Tensor, "N"] | None = None,
        classes: list[str] | None = None,
        *,
        title: str = "image",
        names: Callable[[int], str] | None = None,
        sample_ids: Int[Tensor, "N"] | None = None,
        readable: Bool[Tensor, "N"] | None = None,
        fingerprint: str | None = None,
        by_names: str | None = None,
    ) -> None:
        count = len(images)
        self.images = images
        self.labels = torch.full((count,), UNLABELLED) if labels is None else labels
        self.classes = classes or []
        self.sample_ids = torch.arange(count) if sample_ids is None else sample_ids
        self.size = (images.shape[2], images.shape[3])
        self.title = title
        self.readable = torch.ones(count, dtype=torch.bool) if readable is None else readable
        self._names = names
        self._fingerprint, self._by_names = fingerprint, by_names

    def read(self, rows: Int[Tensor, "B"]) -> tuple[Images, Bool[Tensor, "B"]]:
        """The images of these rows, and which of them could be read; the others are zeros."""
        # index_select: torch's images[rows] is nine times slower on uint8
        return self.images.index_select(0, rows), self.readable.index_select(0, rows)

    def name(self, row: int) -> str:
        """Path or member name of a row, else the title and the row's number."""
        return f"{self.title} {row}" if self._names is None else self._names(row)

    def make_fingerprint(self) -> str:
        """What was given, else SHA-256 of the pixels."""
        return self._fingerprint or digest(str(tuple(self.images.shape)).encode(), self.images.numpy().tobytes())

    def make_fingerprint_by_names(self) -> str:
        """What was given, else the same as `fingerprint`."""
        return self._by_names or self.fingerprint


class SelectedImages(ImageDataset):
    """Some rows of other images, numbered afresh.

    Args:
        dataset: Where the rows lie.
        rows: Which ones.
        labels: Class of each row chosen; without it the class that it has there.
        classes: Names of the classes that come with `labels`.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        rows: Int[Tensor, "M"],
        labels: Int[Tensor, "M"] | None = None,
        classes: list[str] | None = None,
    ) -> None:
        self.dataset = dataset
        self.rows = rows
        self.labels = dataset.labels[rows] if labels is None else labels
        self.sample_ids = dataset.sample_ids[rows]
        self.classes = dataset.classes if classes is None else classes
        self.size = dataset.size

    def read(self, rows: Int[Tensor, "B"]) -> tuple[Images, Bool[Tensor, "B"]]:
        """The images of these rows, and which of them could be read; the others are zeros."""
        return self.dataset.read(self.rows[rows])

    def name(self, row: int) -> str:
        """Path or member name of a row, for people and messages."""
        return self.dataset.name(int(self.rows[row]))

    def make_fingerprint(self) -> str:
        """SHA-256 of the underlying images and of the rows chosen."""
        return combined([self.dataset.fingerprint], self.rows.numpy().tobytes())

    def make_fingerprint_by_names(self) -> str:
        """The same without content."""
        return combined([self.dataset.fingerprint_by_names], self.rows.numpy().tobytes())


class ConcatImages(ImageDataset):
    """The rows of several images one after the other.

    Equal class lists stay one list; different ones are put one after the other, and so are their labels. Sample ids of
    later parts are raised above those of earlier ones.
    """

    def __init__(self, parts: list[ImageDataset]) -> None:
        self.parts = parts
        self.starts = list(accumulate((len(part) for part in parts), initial=0))
        self.classes, self.labels = _joined_labels(parts)
        tops = accumulate((int(part.sample_ids.max()) + 1 for part in parts), initial=0)
        self.sample_ids = torch.cat([part.sample_ids + top for part, top in zip(parts, tops, strict=False)])
        sizes = {part.size for part in parts}
        self.size = sizes.pop() if len(sizes) == 1 else None

    def read(self, rows: Int[Tensor, "B"]) -> tuple[Images, Bool[Tensor, "B"]]:
        """The images of these rows, and which of them could be read; the others are zeros."""
        valid = torch.zeros(len(rows), dtype=torch.bool)
        images: Images = [torch.empty(0)] * len(rows)
        if self.size:
            images = torch.empty(len(rows), 3, *self.size, dtype=torch.uint8)
        for part, start, end in zip(self.parts, self.starts, self.starts[1:], strict=False):
            places = ((rows >= start) & (rows < end)).nonzero().flatten()
            found, valid[places] = part.read(rows[places] - start)
            for place, image in zip(places.tolist(), found, strict=True):
                images[place] = image
        return images, valid

    def name(self, row: int) -> str:
        """Path or member name of a row, for people and messages."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part].name(row - self.starts[part])

    def make_fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the parts."""
        return combined(part.fingerprint for part in self.parts)

    def make_fingerprint_by_names(self) -> str:
        """The same without content."""
        return combined(part.fingerprint_by_names for part in self.parts)


class PackedNames:
    """File names as one block of bytes: a million of them in two arrays, which workers share without copying.

    Args:
        names: As the operating system gives them; bytes that are no text survive the round trip.
    """

    def __init__(self, names: list[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self.block = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> str:
        start = self.ends[row - 1] if row else 0
        return self.block[start : self.ends[row]].tobytes().decode("utf-8", "surrogateescape")


def _joined_labels(parts: list[ImageDataset]) -> tuple[list[str], Int[Tensor, "N"]]:
    lists = [part.classes for part in parts if part.classes]
    if all(classes == lists[0] for classes in lists):
        return (lists[0] if lists else []), torch.cat([part.labels for part in parts])
    firsts = accumulate((len(part.classes) for part in parts), initial=0)
    labels = [
        torch.where(part.labels == UNLABELLED, UNLABELLED, part.labels + first)
        for part, first in zip(parts, firsts, strict=False)
    ]
    return [name for classes in lists for name in classes], torch.cat(labels)
