"""From rows to raw batches: read here or in worker processes, which change no bit and may die without loss."""

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_lightning.data.crops import resize
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.views import View, center_view, crop_boxes
from ssl_lightning.types import RawBatch

_ATTEMPTS = 2


class RankShard(NamedTuple):
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
class CropSpec:
    """How images of several sizes become stacks of crops: in the worker, one after the other.

    Attributes:
        views: One random crop each; empty for one center view.
        image_size: Side of the largest crop in pixels.
        seed: Of the run.
        center_fraction: Side of the center view as a fraction of the image's short side.
    """

    views: list[View]
    image_size: int
    seed: int = 0
    center_fraction: float = 1.0

    def __call__(self, images: list[UInt8[Tensor, "3 _h _w"]], task: Task) -> list[UInt8[Tensor, "B 3 _s _s"]]:
        """One stack a view, not yet flipped or colored."""
        if not self.views:
            return [torch.stack([self._center(image) for image in images])]
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

    def _center(self, image: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 s s"]:
        view = center_view(image.unsqueeze(0), self.image_size, self.center_fraction)[0]
        return (view * 255).round().byte()


class TaskDataset(Dataset):
    """A task in, a raw batch out; the same in the main process and in workers."""

    def __init__(self, dataset: ImageDataset, crop_spec: CropSpec) -> None:
        self.dataset = dataset
        self.crop_spec = crop_spec

    def __getitem__(self, key: tuple[int, np.ndarray]) -> RawBatch:
        return self.read(Task(key[0], torch.from_numpy(key[1])))

    def read(self, task: Task) -> RawBatch:
        """The images of one batch."""
        images, valid = self.dataset.read(task.rows)
        if isinstance(images, list):
            images = self.crop_spec(images, task)
        return RawBatch(task.rows, images, self.dataset.labels[task.rows], valid)


class Tasks:
    """The tasks that are left to do; the loader's worker processes outlive the list."""

    def __init__(self) -> None:
        self.left: list[Task] = []

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        # arrays: a tensor would go to the worker through shared memory, with all rows of the epoch behind it
        return ((task.epoch, task.rows.numpy()) for task in self.left)

    def __len__(self) -> int:
        return len(self.left)


class TaskReader:
    """Reads tasks in order: here if the images are in memory or there are no workers, else in worker processes."""

    def __init__(self, dataset: ImageDataset, crop_spec: CropSpec, num_workers: int, keep_workers: bool) -> None:
        self.reader = TaskDataset(dataset, crop_spec)
        self.num_workers = 0 if dataset.size else num_workers
        self.keep_workers = keep_workers
        self._tasks = Tasks()
        self._loader: DataLoader | None = None
        self._iterator: Any = None
        _task_readers.add(self)

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
                    done, failures = done + 1, 0
                    if done == len(tasks) and not self.keep_workers:
                        self.end_workers()  # now, for Lightning never asks whether there is more
                    yield batch
            except (RuntimeError, OSError, EOFError) as error:
                self.end_workers()
                if not _tells_of_death(error):
                    raise
                failures += 1
                if failures == _ATTEMPTS:
                    raise self._told(error, tasks[done : done + 2 * self.num_workers]) from error

    def end_workers(self) -> None:
        """Let the worker processes end; the next task starts new ones."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()
        self._iterator = self._loader = None

    def _started(self) -> Iterator[RawBatch]:
        with _deaths_told_in_place():
            self._iterator = iter(self._workers())
        return self._iterator

    def _workers(self) -> DataLoader:
        if self._loader is None:
            self._loader = DataLoader(
                dataset=self.reader,
                sampler=self._tasks,
                batch_size=None,
                num_workers=self.num_workers,
                persistent_workers=self.keep_workers,
                collate_fn=_unchanged,
                worker_init_fn=_heed_only_the_main_process,
                # of its own: it would draw the seeds of workers from the global one, which dropout draws from
                generator=torch.Generator().manual_seed(self.reader.crop_spec.seed),
            )
        return self._loader

    def _told(self, error: Exception, in_flight: list[Task]) -> RuntimeError:
        rows = torch.cat([task.rows for task in in_flight]).tolist()
        names = ", ".join(self.reader.dataset.name(row) for row in rows[:3])
        return RuntimeError(
            f"{error} while reading rows {rows}, the first being {names}: "
            "if it ran out of memory, lower data.num_workers or data.batch_size"
        )


_task_readers: WeakSet[TaskReader] = WeakSet()


@atexit.register
def _end_all_workers() -> None:
    """Python itself would wait for ever for workers that leave its signal to the main process."""
    for reading in list(_task_readers):
        reading.end_workers()


def _unchanged(batch: Any) -> Any:
    return batch


def _tells_of_death(error: Exception) -> bool:
    """Torch notices a dead worker, or the memory that it shared is gone before its batch has been fetched."""
    return isinstance(error, OSError | EOFError) or str(error).startswith("DataLoader worker")


@contextmanager
def _deaths_told_in_place() -> Iterator[None]:
    """Without torch's signal handler, which raises wherever the main process happens to be when a worker dies.

    The loader that waits for a batch finds the death too, after five seconds at most, and there it can be fixed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


def _heed_only_the_main_process(worker: int) -> None:
    """Control-C and a scheduler's signals reach workers too, but what they mean is for the main process to decide."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_main_process_says_so, daemon=True).start()


def _end_when_the_main_process_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(1)
