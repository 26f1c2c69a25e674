"""Loaders with a resumable position: rows of an `ImageDataset` in a fixed order, sharded over processes."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.order import (
    KEYED,
    SORTED,
    balanced_order,
    epoch_order,
    keyed_order,
    occurrences,
    order_version,
)
from ssl_lightning.data.reading import CropSpec, RankShard, Task, TaskReader
from ssl_lightning.data.unreadable import described
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.types import RawBatch

Labels = Int[Tensor, "N"] | None
"""Cluster of each row, for an order that is balanced over clusters."""


class TrainingLoader:
    """The training rows of one process, epoch after epoch, with a position that is stored in checkpoints.

    Global batch b is `order[b * G : (b + 1) * G]`, and each process takes a contiguous block of it. The number of
    processes therefore changes neither the order nor the batches. The order is computed at the first batch, since
    Lightning creates the first iterator before the first clustering. A balanced order repeats rows; each batch counts
    the earlier appearances of its rows in the global order of the epoch, so that a repeated row has other views.

    Args:
        dataset: All training images.
        crop_spec: Crops of images of different sizes.
        batch_size: G, the number of rows over all processes.
        share: The shard of this process.
        num_workers: Processes that read images from disk.
        drop_last: Leave out the last, incomplete batch. It is always left out if it has fewer than two rows per
            process.
        max_unreadable: Largest fraction of the rows of an epoch that may be unreadable.

    Attributes:
        epoch: Counted from zero.
        position: Number of global batches of this epoch that were returned.
        masked: Number of unreadable rows of this process in this epoch so far.
        unreadable: Unreadable rows of this process in this epoch so far, as far as this process has read them.
        labels: Clusters over which the next epoch is balanced; None for the natural order.
        power: How evenly it is balanced, see `balanced_order`.
        keeps_labels: Whether labels and power are those of `keep_labels`, and not those of a checkpoint.
        order: Version of the natural order, which is that of the checkpoint in a resumed run.
        seconds: Time that batches of this process have taken so far.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        crop_spec: CropSpec,
        batch_size: int,
        share: RankShard = RankShard(),  # noqa: B008  # an immutable pair of numbers
        num_workers: int = 0,
        drop_last: bool = True,
        max_unreadable: float = 0.05,
    ) -> None:
        if batch_size % share.world_size:
            raise UsageError(
                f"data.batch_size={batch_size} does not divide by {share.world_size} processes: give a multiple of it"
            )
        if batch_size < 2 * share.world_size:
            raise UsageError(f"data.batch_size={batch_size} gives a process fewer than two rows: raise it")
        self.dataset = dataset
        self.crop_spec = crop_spec
        self.batch_size = batch_size
        self.share = share
        self.drop_last = drop_last
        self.max_unreadable = max_unreadable
        self.epoch = self.position = self.masked = 0
        self.unreadable: list[int] = []
        self.seconds = 0.0
        self.labels: Labels = None
        self.power, self.keeps_labels = 1.0, False
        self.order = order_version(len(dataset))
        self._labels_in_use: Labels = None
        self._power_in_use = 1.0
        self._start = 0
        self._read = TaskReader(dataset, crop_spec, num_workers, keep_workers=True)
        if len(self) == 0:
            raise DataError(f"found {len(dataset)} images, fewer than one batch of {batch_size}: lower data.batch_size")

    def __len__(self) -> int:
        return batches_per_epoch(len(self.dataset), self.batch_size, self.drop_last, self.share.world_size)

    @property
    def sampler(self) -> "TrainingLoader":
        """Lightning sets the epoch of the object under this name."""
        return self

    @property
    def masked_share(self) -> float:
        """Fraction of the rows of this process in this epoch so far that were unreadable."""
        return self.masked / max(1, self.position * self.batch_size // self.share.world_size)

    def keep_labels(self, labels: Labels, power: float) -> None:
        """Balance all epochs over these clusters; a checkpoint changes only the epoch that it resumes.

        Args:
            labels: Cluster of each row.
            power: See `balanced_order`.
        """
        self.labels, self.power, self.keeps_labels = labels, power, True

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; the position is reset if the epoch changes."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.position = self.masked = self._start = 0

    def __iter__(self) -> Iterator[RawBatch]:
        self.position, self._start = self._start, 0
        if self.position == 0:
            self.masked, self.unreadable = 0, []
            self._labels_in_use, self._power_in_use = self.labels, self.power
        began = time.perf_counter()
        for batch in self._read(self._tasks()[self.position :]):
            self.seconds += time.perf_counter() - began
            self.position += 1
            self._count_unreadable(batch)
            yield batch
            began = time.perf_counter()

    def _tasks(self) -> Sequence[Task]:
        count = len(self.dataset)
        if self._labels_in_use is None and self.order == KEYED:
            return _KeyedTasks(self, range(len(self)))
        if self._labels_in_use is None:
            order = epoch_order(self.crop_spec.seed, self.epoch, count)
            return [Task(self.epoch, self.share.of(rows)) for rows in order.split(self.batch_size)[: len(self)]]
        order = balanced_order(self.crop_spec.seed, self.epoch, self._labels_in_use, count, self._power_in_use)
        batches = zip(order.split(self.batch_size), occurrences(order).split(self.batch_size), strict=True)
        tasks = [Task(self.epoch, self.share.of(rows), self.share.of(earlier)) for rows, earlier in batches]
        return tasks[: len(self)]

    def _count_unreadable(self, batch: RawBatch) -> None:
        if bool(batch.valid.all()):
            return
        unreadable = batch.index[~batch.valid].tolist()
        self.masked += len(unreadable)
        self.unreadable += unreadable
        if len(batch.index) - len(unreadable) < 2:
            raise DataError(
                f"found fewer than two readable images in a batch of {len(batch.index)} "
                f"{described(unreadable, self.dataset)}. Remove the others, or raise data.batch_size"
            )
        rows = len(self) * self.batch_size // self.share.world_size
        if self.masked > self.max_unreadable * rows:
            raise DataError(
                f"{self.masked} of {rows} images of epoch {self.epoch} cannot be read "
                f"{described(self.unreadable, self.dataset)}. Remove them, or raise "
                f"data.max_unreadable={self.max_unreadable:g}"
            )

    def end_workers(self) -> None:
        """End the worker processes; another epoch starts new ones."""
        self._read.end_workers()

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch, which Lightning stores in every checkpoint."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "masked": self.masked,
            "labels": self.labels,
            "labels_in_use": self._labels_in_use,
            "power": self.power,
            "power_in_use": self._power_in_use,
            "keeps_labels": self.keeps_labels,
            "order": self.order,
            "made_for": self._made_for(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a position, with any number of processes and workers.

        Raises:
            UsageError: If the state belongs to other images, another batch size or another seed.
        """
        made_for = self._made_for() | {
            "fingerprint": self.dataset.fingerprint_as(str(state["made_for"]["fingerprint"]))
        }
        for name, now in made_for.items():
            if state["made_for"][name] != now:
                raise UsageError(
                    f"the checkpoint was written with data.{name}={state['made_for'][name]}, found {now}: "
                    "give the same data, or start a new run; --run.start_from <checkpoint> begins one with its weights"
                )
        if not 0 <= int(state["position"]) <= len(self):
            raise DataError(f"found a checkpoint at batch {state['position']} of an epoch of {len(self)}")
        order = state.get("order", SORTED)  # of checkpoints of earlier versions
        if order not in (SORTED, KEYED):
            raise DataError(
                f"found a checkpoint with the order {order!r}; expected {SORTED} or {KEYED}: update the package"
            )
        self.order = order
        self.epoch, self.masked = int(state["epoch"]), int(state["masked"])
        self.position = self._start = int(state["position"])
        self._labels_in_use, self._power_in_use = state["labels_in_use"], float(state.get("power_in_use", 1.0))
        if not self.keeps_labels and not state.get("keeps_labels"):
            self.labels, self.power = state["labels"], float(state.get("power", 1.0))

    def _made_for(self) -> dict[str, Any]:
        return {
            "fingerprint": self.dataset.fingerprint,
            "batch_size": self.batch_size,
            "seed": self.crop_spec.seed,
            "drop_last": self.drop_last,
        }


class _KeyedTasks(Sequence[Task]):
    """Tasks of an epoch that are made when they are read, with the rows of one batch at a time."""

    def __init__(self, loader: TrainingLoader, numbers: range) -> None:
        self.loader, self.numbers, self.epoch = loader, numbers, loader.epoch

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Task: ...

    @overload
    def __getitem__(self, place: slice) -> "_KeyedTasks": ...

    def __getitem__(self, place: int | slice) -> "Task | _KeyedTasks":
        if isinstance(place, slice):
            return _KeyedTasks(self.loader, self.numbers[place])
        start, count = self.numbers[place] * self.loader.batch_size, len(self.loader.dataset)
        end = min(count, start + self.loader.batch_size)
        rows = keyed_order(self.loader.crop_spec.seed, self.epoch, count, start, end)
        return Task(self.epoch, self.loader.share.of(rows))


def batches_per_epoch(num_samples: int, batch_size: int, drop_last: bool, world_size: int) -> int:
    """Number of batches in an epoch. The last, incomplete one counts if kept and with two rows for every process."""
    whole, rest = divmod(num_samples, batch_size)
    return whole + (not drop_last and rest >= 2 * world_size)


class SequentialLoader:
    """Rows in order without padding, sharded over processes: for evaluation and for passes over all features.

    All processes have the same number of batches, since networks with sharded parameters compute together.

    Args:
        dataset: The images.
        crop_spec: The center view of images of different sizes.
        batch_size: Rows per batch of this process.
        share: The shard of this process.
        num_workers: Processes that read images from disk.
        rows: The rows; None for all.
        epoch: Epoch of the random numbers of views.

    Attributes:
        count: Number of rows of all processes.
        unreadable: Rows of this process that the last pass could not read.
    """

    count: int
    unreadable: list[int]

    def __init__(
        self,
        dataset: ImageDataset,
        crop_spec: CropSpec,
        batch_size: int,
        share: RankShard = RankShard(),  # noqa: B008  # an immutable pair of numbers
        num_workers: int = 0,
        rows: Int[Tensor, "M"] | None = None,
        epoch: int = 0,
    ) -> None:
        self.epoch = epoch
        every = torch.arange(len(dataset)) if rows is None else rows
        self.rows = share.of(every)
        self._batches = _batches(self.rows, batch_size, -(-len(every) // share.world_size))
        self._read = TaskReader(dataset, crop_spec, num_workers, keep_workers=False)
        self.count, self.unreadable = len(every), []

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[RawBatch]:
        self.unreadable = []
        if not self._batches:
            return
        for batch in self._read([Task(self.epoch, rows) for rows in self._batches]):
            if not bool(batch.valid.all()):
                self.unreadable += batch.index[~batch.valid].tolist()
            yield batch

    def end_workers(self) -> None:
        """End the worker processes of an unfinished pass."""
        self._read.end_workers()


def _batches(rows: Int[Tensor, "n"], batch_size: int, longest: int) -> list[Int[Tensor, "_b"]]:
    """Rows of one process, in as many batches as the process with the most rows has."""
    batches = list(rows.split(batch_size)) if len(rows) else []
    if batches and len(batches) < -(-longest // batch_size):
        batches[-1:] = batches[-1].tensor_split(2)  # sizes differ by at most one row
    return [batch for batch in batches if len(batch)]
