"""ImageDataset: images that are read by row, from memory or from disk."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from ssl_lightning.contracts import ImageTable, SourceReport
from ssl_lightning.data.class_names import joined_classes, relabeled
from ssl_lightning.data.fingerprint import combined, digest, in_the_form_of
from ssl_lightning.types import UNLABELLED

Images = UInt8[Tensor, "B 3 h w"] | list[UInt8[Tensor, "3 _h _w"]]
"""Images: one tensor if all have one size, else a list."""


class ImageDataset(ImageTable):
    """The images of a source in a fixed order. An unreadable image keeps its row and is marked as invalid.

    Attributes:
        labels: Class of each row in the source, `UNLABELLED` if it has none.
        sample_ids: Permanent id of each row within its source.
        classes: Names of the classes, sorted by their bytes; empty without labels.
        size: Height and width if all images are in memory in one size, else None.
        title: Name of the source in reports.
    """

    labels: Int[Tensor, "N"]
    sample_ids: Int[Tensor, "N"]
    classes: list[str]
    size: tuple[int, int] | None
    title: str = "images"

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, rows: Int[Tensor, "B"]) -> tuple[Images, Bool[Tensor, "B"]]:
        """Return the images of these rows, and which of them could be read; unreadable ones are zeros."""

    @abstractmethod
    def name(self, row: int) -> str:
        """Path or member name of a row, for messages."""

    @property
    def skipped(self) -> Mapping[str, Sequence[str]]:
        """Names of the files of the source that are no images, by reason."""
        return {}

    @property
    def known_unreadable(self) -> Mapping[int, str]:
        """The reason for each row that is known to be unreadable; images on disk are tried when they are read."""
        return {}

    def reason(self, row: int) -> str:
        """The reason why a row cannot be read."""
        return self.known_unreadable.get(row, "damaged")

    def notes(self) -> list[str]:
        """Further sentences about the images."""
        return []

    def reports(self) -> list[SourceReport]:
        """What the dataset holds, and what is left out."""
        unreadable: dict[str, list[str]] = {}
        for row, reason in self.known_unreadable.items():
            unreadable.setdefault(reason, []).append(self.name(row))
        return [SourceReport(self.title, len(self), self.skipped, unreadable, self.notes())]

    @abstractmethod
    def make_fingerprint(self) -> str:
        """Compute `fingerprint`."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the images, their order and their content; independent of their location."""
        return self.make_fingerprint()

    @cached_property
    def fingerprint_by_names(self) -> str:
        """The fingerprint of earlier versions: of files by names and sizes without content; else `fingerprint`."""
        return self.make_fingerprint_by_names()

    def make_fingerprint_by_names(self) -> str:
        """Compute `fingerprint_by_names`."""
        return self.fingerprint

    def fingerprint_as(self, other: str | None) -> str:
        """The fingerprint to compare with one from a file, which may be of the earlier form."""
        if other == self.fingerprint:
            return self.fingerprint
        return in_the_form_of(other, self.fingerprint, self.fingerprint_by_names)

    @property
    def names(self) -> list[str]:
        """The names of all rows."""
        return [self.name(row) for row in range(len(self))]

    def select(self, rows: Int[Tensor, "M"]) -> "ImageDataset":
        """A dataset of these rows only, renumbered in the given order."""
        return SelectedImages(self, rows)


class InMemoryImages(ImageDataset):
    """Decoded images of one size in memory.

    Args:
        images: All images.
        labels: Class of each row; None if there are no labels.
        classes: Names of the classes.
        title: Name of a row in messages, followed by its number, if there are no names.
        names: Returns the path or member name of a row.
        sample_ids: Permanent ids; by default the row numbers.
        unreadable: The reason for each row that could not be read.
        skipped: Names of the files of the source that are no images, by reason.
        notes: Returns further sentences about the images.
        fingerprint: Fingerprint of the files of the images; by default that of the pixels.
        by_names: Fingerprint of the names and sizes of the files.
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
        unreadable: Mapping[int, str] | None = None,
        skipped: Mapping[str, Sequence[str]] | None = None,
        notes: Callable[[], list[str]] = list,
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
        self.unreadable = unreadable or {}
        self.readable = torch.ones(count, dtype=torch.bool)
        self.readable[list(self.unreadable)] = False
        self._skipped, self._notes = skipped or {}, notes
        self._names = names
        self._fingerprint, self._by_names = fingerprint, by_names

    def read(self, rows: Int[Tensor, "B"]) -> tuple[Images, Bool[Tensor, "B"]]:
        """Return the images of these rows, and which of them could be read; unreadable ones are zeros."""
        # index_select: images[rows] takes nine times as long for uint8
        return self.images.index_select(0, rows), self.readable.index_select(0, rows)

    def name(self, row: int) -> str:
        """Path or member name of a row, or the title and the row number."""
        return f"{self.title} {row}" if self._names is None else self._names(row)

    @property
    def skipped(self) -> Mapping[str, Sequence[str]]:
        """Names of the files of the source that are no images, by reason."""
        return self._skipped

    @property
    def known_unreadable(self) -> Mapping[int, str]:
        """The reason for each unreadable row."""
        return self.unreadable

    def notes(self) -> list[str]:
        """Further sentences about the images."""
        return self._notes()

    def make_fingerprint(self) -> str:
        """The given fingerprint, or the SHA-256 of the pixels."""
        return self._fingerprint or digest(str(tuple(self.images.shape)).encode(), self.images.numpy().tobytes())

    def make_fingerprint_by_names(self) -> str:
        """The given fingerprint, or `fingerprint`."""
        return self._by_names or self.fingerprint


class SelectedImages(ImageDataset):
    """A selection of rows of another dataset, renumbered.

    Args:
        dataset: The other dataset.
        rows: The selected rows.
        labels: Class of each selected row; by default that of the other dataset.
        classes: Names of the classes, if `labels` is given.
        title: Name of the selection in reports; by default that of the other dataset.
        prefix: Start of the names of files that belong to the selection.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        rows: Int[Tensor, "M"],
        labels: Int[Tensor, "M"] | None = None,
        classes: list[str] | None = None,
        *,
        title: str = "",
        prefix: str = "",
    ) -> None:
        self.dataset = dataset
        self.title, self.prefix = title or dataset.title, prefix
        self.rows = rows
        self.labels = dataset.labels[rows] if labels is None else labels
        self.sample_ids = dataset.sample_ids[rows]
        self.classes = dataset.classes if classes is None else classes
        self.size = dataset.size

    def read(self, rows: Int[Tensor, "B"]) -> tuple[Images, Bool[Tensor, "B"]]:
        """Return the images of these rows, and which of them could be read; unreadable ones are zeros."""
        return self.dataset.read(self.rows[rows])

    def name(self, row: int) -> str:
        """Path or member name of a row, for messages."""
        return self.dataset.name(int(self.rows[row]))

    @property
    def skipped(self) -> Mapping[str, Sequence[str]]:
        """Names of the files of the source that are no images, by reason."""
        chosen = {
            reason: [name for name in names if name.startswith(self.prefix)]
            for reason, names in self.dataset.skipped.items()
        }
        return {reason: names for reason, names in chosen.items() if names}

    @property
    def known_unreadable(self) -> Mapping[int, str]:
        """The reason for each selected row that is known to be unreadable."""
        known = self.dataset.known_unreadable
        return {row: known[old] for row, old in enumerate(self.rows.tolist()) if old in known} if known else {}

    def reason(self, row: int) -> str:
        """The reason why a row cannot be read."""
        return self.dataset.reason(int(self.rows[row]))

    def notes(self) -> list[str]:
        """Further sentences about the images."""
        return self.dataset.notes()

    def make_fingerprint(self) -> str:
        """SHA-256 of the other dataset's fingerprint and the selected rows."""
        return combined([self.dataset.fingerprint], self.rows.numpy().tobytes())

    def make_fingerprint_by_names(self) -> str:
        """The same without content."""
        return combined([self.dataset.fingerprint_by_names], self.rows.numpy().tobytes())


class ConcatImages(ImageDataset):
    """The concatenation of several datasets.

    Classes are joined by name: those of the first dataset, then those that only later ones have. Sample ids of later
    datasets are shifted above those of earlier ones.
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
        """Return the images of these rows, and which of them could be read; unreadable ones are zeros."""
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
        """Path or member name of a row, for messages."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part].name(row - self.starts[part])

    @property
    def known_unreadable(self) -> Mapping[int, str]:
        """The reason for each row that is known to be unreadable."""
        return {
            start + row: reason
            for part, start in zip(self.parts, self.starts, strict=False)
            for row, reason in part.known_unreadable.items()
        }

    def reason(self, row: int) -> str:
        """The reason why a row cannot be read."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part].reason(row - self.starts[part])

    def reports(self) -> list[SourceReport]:
        """Those of all datasets."""
        return [report for part in self.parts for report in part.reports()]

    def make_fingerprint(self) -> str:
        """SHA-256 of the fingerprints of the datasets."""
        return combined(part.fingerprint for part in self.parts)

    def make_fingerprint_by_names(self) -> str:
        """The same without content."""
        return combined(part.fingerprint_by_names for part in self.parts)


class PackedNames:
    """File names in one block of bytes: two arrays for a million names, which workers share without copying.

    Args:
        names: Names from the operating system; bytes that are not text are preserved.
    """

    def __init__(self, names: list[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self.block = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    @classmethod
    def of(cls, block: np.ndarray, ends: np.ndarray) -> "PackedNames":
        """Names in arrays that exist, such as mapped files.

        Args:
            block: Bytes of all names.
            ends: End of each name in it.
        """
        names = cls([])
        names.block, names.ends = block, ends
        return names

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> str:
        start = self.ends[row - 1] if row else 0
        return self.block[start : self.ends[row]].tobytes().decode("utf-8", "surrogateescape")


def _joined_labels(parts: list[ImageDataset]) -> tuple[list[str], Int[Tensor, "N"]]:
    joined = joined_classes([part.classes for part in parts if part.classes])
    return joined, torch.cat([relabeled(part.labels, part.classes, joined) for part in parts])
