"""Loaders with a position: rows of `Pictures` in a known order, as batches of what lies in memory or on disk."""

import signal
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_lightning.data.crops import resize
from ssl_lightning.data.order import balanced_order, epoch_order
from ssl_lightning.data.pictures import Pictures
from ssl_lightning.data.views import View, centre_view, crop_boxes
from ssl_lightning.types import RawBatch

_ATTEMPTS = 2

Labels = Int[Tensor, "N"] | None
"""Cluster of each row, where the order is balanced over them."""


class Share(NamedTuple):
    """Which part of every global batch, or of all rows, is this process's."""

    rank: int = 0
    world_size: int = 1

    def of(self, rows: Int[Tensor, "N"]) -> Int[Tensor, "M"]:
        """This process's contiguous block; no row is given twice or left out."""
        begin, end = (len(rows) * (self.rank + extra) // self.world_size for extra in (0, 1))
        return rows[begin:end]


class Task(NamedTuple):
    """One batch to read: everything that a worker needs to know."""

    epoch: int
    rows: Int[Tensor, "B"]


@dataclass(frozen=True, eq=False)
class Cutting:
    """How pictures of several sizes become stacks of crops: in the worker, one after the other.

    Attributes:
        views: One random crop each; empty for one centre view.
        image_size: Side of the largest crop in pixels.
        seed: Of the run.
        centre_fraction: Side of the centre view as a fraction of the picture's short side.
    """

    views: list[View]
    image_size: int
    seed: int = 0
    centre_fraction: float = 1.0

    def __call__(self, images: list[UInt8[Tensor, "3 _h _w"]], task: Task) -> list[UInt8[Tensor, "B 3 _s _s"]]:
        """One stack a view, not yet flipped or coloured."""
        if not self.views:
            return [torch.stack([self._centre(image) for image in images])]
        return [self._crops(images, task, number, view) for number, view in enumerate(self.views)]

    def _crops(self, images: list[Tensor], task: Task, number: int, view: View) -> UInt8[Tensor, "B 3 s s"]:
        side = view.pixels(self.image_size)
        heights, widths = torch.tensor([image.shape[1:] for image in images]).unbind(1)
        # drawn for all at once: a draw costs as much for one row as for hundreds
        boxes = crop_boxes(view, heights, widths, seed=self.seed, epoch=task.epoch, rows=task.rows, number=number)
        crops = torch.empty(len(images), 3, side, side, dtype=torch.uint8)
        for crop, image, (top, left, height, width) in zip(crops, images, boxes.tolist(), strict=True):
            crop.copy_(resize(image[:, top : top + height, left : left + width], side, side))
        return crops

    def _centre(self, image: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 s s"]:
        view = centre_view(image.unsqueeze(0), self.image_size, self.centre_fraction)[0]
        return (view * 255).round().byte()


class Reader(Dataset):
    """A task in, a raw batch out; the same in the main process and in workers."""

    def __init__(self, pictures: Pictures, cutting: Cutting) -> None:
        self.pictures = pictures
        self.cutting = cutting

    def __getitem__(self, key: tuple[int, np.ndarray]) -> RawBatch:
        return self.read(Task(key[0], torch.from_numpy(key[1])))

    def read(self, task: Task) -> RawBatch:
        """The pictures of one batch."""
        images, valid = self.pictures.read(task.rows)
        if isinstance(images, list):
            images = self.cutting(images, task)
        return RawBatch(task.rows, images, self.pictures.labels[task.rows], valid)


class Tasks:
    """The tasks that are left to do; the loader's worker processes outlive the list."""

    def __init__(self) -> None:
        self.left: list[Task] = []

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        # arrays: a tensor would go to the worker through shared memory, with all rows of the epoch behind it
        return ((task.epoch, task.rows.numpy()) for task in self.left)

    def __len__(self) -> int:
        return len(self.left)


class Reading:
    """Reads tasks in order: here if the pictures are in memory or there are no workers, else in worker processes."""

    def __init__(self, pictures: Pictures, cutting: Cutting, num_workers: int, keep_workers: bool) -> None:
        self.reader = Reader(pictures, cutting)
        self.num_workers = 0 if pictures.size else num_workers
        self.keep_workers = keep_workers
        self._tasks = Tasks()
        self._loader: DataLoader | None = None
        self._running: list[Any] = []
        # at the end of Python too: it would wait for ever for workers that do not heed its signal
        weakref.finalize(self, _shut_down, self._running)

    def __call__(self, tasks: list[Task]) -> Iterator[RawBatch]:
        """One batch a task. How many workers there are changes no bit.

        Raises:
            RuntimeError: A worker died again and again at the same place.
        """
        if self.num_workers == 0:
            yield from map(self.reader.read, tasks)
            return
        done, failures = 0, 0
        while done < len(tasks):
            self._tasks.left = tasks[done:]
            try:
                for batch in self._started():
                    yield batch
                    done, failures = done + 1, 0
            except (RuntimeError, OSError, EOFError) as error:
                _shut_down(self._running)
                self._loader = None
                if not _tells_of_death(error):
                    raise
                failures += 1
                if failures == _ATTEMPTS:
                    raise self._told(error, tasks[done : done + 2 * self.num_workers]) from error

    def _started(self) -> Iterator[RawBatch]:
        iterator = iter(self._workers())
        self._running[:] = [iterator]
        return iterator

    def _workers(self) -> DataLoader:
        if self._loader is None:
            self._loader = DataLoader(
                dataset=self.reader,
                sampler=self._tasks,
                batch_size=None,
                num_workers=self.num_workers,
                persistent_workers=self.keep_workers,
                collate_fn=_unchanged,
                worker_init_fn=_leave_signals_to_the_main_process,
            )
        return self._loader

    def _told(self, error: Exception, in_flight: list[Task]) -> RuntimeError:
        rows = torch.cat([task.rows for task in in_flight]).tolist()
        names = ", ".join(self.reader.pictures.name(row) for row in rows[:3])
        return RuntimeError(
            f"{error} while reading rows {rows}, the first being {names}: "
            "if it ran out of memory, lower data.num_workers or data.batch_size"
        )


class TrainingLoader:
    """The training rows of one process, epoch after epoch, with a position that checkpoints keep.

    Global batch b is `order[b * G : (b + 1) * G]`; each process takes a contiguous block of it, so the number of
    processes changes neither the order nor the batches. Nothing is evaluated before the first batch is asked for:
    Lightning makes the first iterator before the first clustering.

    Args:
        pictures: All training pictures.
        cutting: Views of pictures that have several sizes.
        batch_size: G, rows of all processes together.
        share: Which block of each batch is this process's.
        num_workers: Processes that read pictures from disk.
        drop_last: Leave out the last, incomplete batch. Without it, it is left out all the same if it has fewer than
            two rows a process.
        max_unreadable: Largest share of an epoch's rows that may be unreadable.

    Attributes:
        epoch: Counted from zero.
        position: Global batches of this epoch given out.
        masked: Unreadable rows of this epoch met so far by this process.
        labels: Balance the next epoch over these clusters; None for the natural order.
    """

    def __init__(
        self,
        pictures: Pictures,
        cutting: Cutting,
        batch_size: int,
        share: Share = Share(),  # noqa: B008  # an immutable pair of numbers
        num_workers: int = 0,
        drop_last: bool = True,
        max_unreadable: float = 0.05,
    ) -> None:
        if batch_size % share.world_size:
            raise ValueError(
                f"data.batch_size={batch_size} does not divide by {share.world_size} processes: give a multiple of it"
            )
        if batch_size < 2 * share.world_size:
            raise ValueError(f"data.batch_size={batch_size} gives a process fewer than two rows: raise it")
        self.pictures = pictures
        self.cutting = cutting
        self.batch_size = batch_size
        self.share = share
        self.drop_last = drop_last
        self.max_unreadable = max_unreadable
        self.epoch = self.position = self.masked = 0
        self.labels: Labels = None
        self._labels_in_use: Labels = None
        self._start = 0
        self._read = Reading(pictures, cutting, num_workers, keep_workers=True)
        if len(self) == 0:
            raise ValueError(
                f"found {len(pictures)} pictures, fewer than one batch of {batch_size}: lower data.batch_size"
            )

    def __len__(self) -> int:
        whole, rest = divmod(len(self.pictures), self.batch_size)
        return whole + (not self.drop_last and rest >= 2 * self.share.world_size)

    @property
    def sampler(self) -> "TrainingLoader":
        """Lightning tells the epoch to what stands under this name."""
        return self

    @property
    def masked_share(self) -> float:
        """Share of the rows of this epoch met so far by this process that were unreadable."""
        return self.masked / max(1, self.position * self.batch_size // self.share.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the position starts anew if it is another one."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.position = self.masked = self._start = 0

    def __iter__(self) -> Iterator[RawBatch]:
        self.position, self._start = self._start, 0
        if self.position == 0:
            self.masked = 0
            self._labels_in_use = self.labels
        for batch in self._read(self._tasks()[self.position :]):
            self.position += 1
            self._count_unreadable(batch)
            yield batch

    def _tasks(self) -> list[Task]:
        count = len(self.pictures)
        if self._labels_in_use is None:
            order = epoch_order(self.cutting.seed, self.epoch, count)
        else:
            order = balanced_order(self.cutting.seed, self.epoch, self._labels_in_use, count)
        return [Task(self.epoch, self.share.of(rows)) for rows in order.split(self.batch_size)[: len(self)]]

    def _count_unreadable(self, batch: RawBatch) -> None:
        if bool(batch.valid.all()):
            return
        unreadable = batch.index[~batch.valid].tolist()
        self.masked += len(unreadable)
        names = ", ".join(self.pictures.name(row) for row in unreadable[:5])
        remedy = f"{names}, ...: mend or remove the files"
        if len(batch.index) - len(unreadable) < 2:
            raise ValueError(f"found fewer than two readable pictures in a batch of {len(batch.index)}; not {remedy}")
        if self.masked > self.max_unreadable * len(self) * self.batch_size / self.share.world_size:
            raise ValueError(
                f"found {self.masked} unreadable pictures in epoch {self.epoch}, more than data.max_unreadable="
                f"{self.max_unreadable:g} of its rows; the last ones are {remedy}, or raise data.max_unreadable"
            )

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands: what Lightning puts into every checkpoint."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "masked": self.masked,
            "labels": self.labels,
            "labels_in_use": self._labels_in_use,
            "made_for": self._made_for(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, with any number of processes and workers.

        Raises:
            ValueError: The state belongs to other pictures, another batch size or another seed.
        """
        for name, now in self._made_for().items():
            if state["made_for"][name] != now:
                raise ValueError(
                    f"the checkpoint was written with data.{name}={state['made_for'][name]}, found {now}: "
                    "give the same data, or start a new run"
                )
        self.epoch, self.masked = state["epoch"], state["masked"]
        self.position = self._start = state["position"]
        self.labels, self._labels_in_use = state["labels"], state["labels_in_use"]

    def _made_for(self) -> dict[str, Any]:
        return {
            "fingerprint": self.pictures.fingerprint,
            "batch_size": self.batch_size,
            "seed": self.cutting.seed,
            "drop_last": self.drop_last,
        }


class SequentialLoader:
    """Some rows in order, this process's block of them, unpadded: for judging and for passes over all features.

    Args:
        pictures: What the rows are rows of.
        cutting: The centre view of pictures that have several sizes.
        batch_size: Rows of this process in a batch.
        share: Which block is this process's.
        num_workers: Processes that read pictures from disk.
        rows: Which rows; None for all.
    """

    def __init__(
        self,
        pictures: Pictures,
        cutting: Cutting,
        batch_size: int,
        share: Share = Share(),  # noqa: B008  # an immutable pair of numbers
        num_workers: int = 0,
        rows: Int[Tensor, "M"] | None = None,
    ) -> None:
        self.rows = share.of(torch.arange(len(pictures)) if rows is None else rows)
        self.batch_size = batch_size
        self._read = Reading(pictures, cutting, num_workers, keep_workers=False)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[RawBatch]:
        if len(self.rows):
            yield from self._read([Task(0, rows) for rows in self.rows.split(self.batch_size)])


def _unchanged(batch: Any) -> Any:
    return batch


def _tells_of_death(error: Exception) -> bool:
    """Torch notices a dead worker, or the memory that it shared is gone before its batch has been fetched."""
    return isinstance(error, OSError | EOFError) or str(error).startswith("DataLoader worker")


def _shut_down(running: list[Any]) -> None:
    for iterator in running:
        iterator._shutdown_workers()
    running.clear()


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Control-C and a scheduler's signal reach the whole process group, but only the main process may act on them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
