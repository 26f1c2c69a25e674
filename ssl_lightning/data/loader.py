"""Loaders with a resumable position: rows of an `ImageDataset` in a fixed order, sharded over processes."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.order import (
    FULL,
    KEYED,
    SORTED,
    BlockOrder,
    Blocks,
    balanced_order,
    epoch_order,
    keyed_order,
    occurrences,
    order_version,
)
from ssl_lightning.data.reading import CropSpec, RankShard, Task, TaskReader
from ssl_lightning.data.unreadable import described
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.processes import block_of
from ssl_lightning.types import RawBatch

log = logging.getLogger(__name__)
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
        blocks: Blocks of an order that reads from few of them at a time; None for an order over all rows. A balanced
            order has no blocks.

    Attributes:
        epoch: Counted from zero.
        position: Number of global batches of this epoch that were returned.
        masked: Number of unreadable rows of this process in this epoch so far.
        unreadable: Unreadable rows of this process in this epoch so far, as far as this process has read them.
        labels: Clusters over which the next epoch is balanced; None for the natural order.
        power: How evenly it is balanced, see `balanced_order`.
        keeps_labels: Whether labels and power are those of `keep_labels`, and not those of a checkpoint.
        order: Version of the order without blocks, which is that of the checkpoint in a resumed run.
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
        blocks: Blocks | None = None,
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
        self.blocks = blocks
        self.epoch = self.position = self.masked = 0
        self.unreadable: list[int] = []
        self.seconds = 0.0
        self.labels: Labels = None
        self.power, self.keeps_labels = 1.0, False
        self.order = order_version(len(dataset))
        self._labels_in_use: Labels = None
        self._balance_is_logged = False
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
        seed, epoch, count = self.crop_spec.seed, self.epoch, len(self.dataset)
        if self._labels_in_use is not None:
            return self._balanced_tasks(self._labels_in_use)
        if self.blocks is not None:
            return self._sections(BlockOrder(seed, epoch, count, self.blocks).section)
        if self.order == KEYED:
            return self._sections(lambda start, end: keyed_order(seed, epoch, count, start, end))
        order = epoch_order(seed, epoch, count)
        return [Task(epoch, self.share.of(rows)) for rows in order.split(self.batch_size)[: len(self)]]

    def _sections(self, section: Callable[[int, int], Int[Tensor, "M"]]) -> "_LazyTasks":
        """Tasks with the rows of one batch at a time, from a function of the first place and the end."""
        epoch, count, size, share = self.epoch, len(self.dataset), self.batch_size, self.share

        def make(number: int) -> Task:
            return Task(epoch, share.of(section(number * size, min(count, (number + 1) * size))))

        return _LazyTasks(make, range(len(self)))

    def _balanced_tasks(self, labels: Int[Tensor, "N"]) -> list[Task]:
        if self.blocks is not None and not self._balance_is_logged:
            log.info("the order of epochs is balanced over clusters; data.order=blocks is not used")
            self._balance_is_logged = True
        order = balanced_order(self.crop_spec.seed, self.epoch, labels, len(self.dataset), self._power_in_use)
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
        written = {"order": FULL} | state["made_for"]  # earlier versions have no blocks
        made_for = self._made_for() | {"fingerprint": self.dataset.fingerprint_as(str(written["fingerprint"]))}
        for name, now in made_for.items():
            if written[name] != now:
                raise UsageError(
                    f"the checkpoint was written with data.{name}={written[name]}, found {now}: "
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
            "order": FULL if self.blocks is None else str(self.blocks),
        }


class _LazyTasks(Sequence[Task]):
    """Tasks that are made when they are read.

    Args:
        make: Makes the task of a number.
        numbers: Numbers of the tasks.
    """

    def __init__(self, make: Callable[[int], Task], numbers: range) -> None:
        self.make, self.numbers = make, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Task: ...

    @overload
    def __getitem__(self, place: slice) -> "_LazyTasks": ...

    def __getitem__(self, place: int | slice) -> "Task | _LazyTasks":
        numbers = self.numbers[place]
        return _LazyTasks(self.make, numbers) if isinstance(numbers, range) else self.make(numbers)


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
        self.epoch, self.rows = epoch, rows
        self.count, self.unreadable = len(dataset) if rows is None else len(rows), []
        own = block_of(self.count, share.rank, share.world_size)
        self._bounds = _bounds(own, batch_size, -(-self.count // share.world_size))
        self._tasks = _LazyTasks(self._task, range(len(self._bounds) - 1))
        self._read = TaskReader(dataset, crop_spec, num_workers, keep_workers=False)

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[RawBatch]:
        self.unreadable = []
        if not self._tasks:
            return
        for batch in self._read(self._tasks):
            if not bool(batch.valid.all()):
                self.unreadable += batch.index[~batch.valid].tolist()
            yield batch

    def _task(self, number: int) -> Task:
        start, end = self._bounds[number : number + 2]
        return Task(self.epoch, torch.arange(start, end) if self.rows is None else self.rows[start:end])

    def end_workers(self) -> None:
        """End the worker processes of an unfinished pass."""
        self._read.end_workers()


def _bounds(own: slice, batch_size: int, longest: int) -> list[int]:
    """Bounds of the batches of one process, which has as many batches as the process with the most rows.

    Where it lacks one, its last batch is divided into two that differ by at most one row.
    """
    starts = [*range(own.start, own.stop, batch_size)]
    if starts and len(starts) < -(-longest // batch_size) and own.stop - starts[-1] > 1:
        starts.append(own.stop - (own.stop - starts[-1]) // 2)
    return [*starts, own.stop]
