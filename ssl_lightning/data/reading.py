"""Reading of raw batches in the main process or in workers, with equal results; dead workers are replaced."""

import atexit
import os
import signal
import threading
from collections.abc import Iterator, Sequence
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
from ssl_lightning.processes import block_of
from ssl_lightning.types import RawBatch

_ATTEMPTS = 2


class RankShard(NamedTuple):
    """The shard of a process in every global batch, or in a list of rows."""

    rank: int = 0
    world_size: int = 1

    def of(self, rows: Int[Tensor, "N"]) -> Int[Tensor, "M"]:
        """The contiguous block of this process; blocks are disjoint and complete."""
        return rows[block_of(len(rows), self.rank, self.world_size)]


class Task(NamedTuple):
    """One batch to read."""

    epoch: int
    rows: Int[Tensor, "B"]
    occurrence: Int[Tensor, "B"] | None = None
    """Number of earlier appearances of each row in the epoch; None for 0."""


@dataclass(frozen=True, eq=False)
class CropSpec:
    """Crops of images of different sizes, made one by one in the worker.

    Attributes:
        views: Views with a random crop each; empty for one center view.
        image_size: Side of the largest crop in pixels.
        seed: Seed of the run.
        center_fraction: Side of the center view as a fraction of the image's short side.
    """

    views: list[View]
    image_size: int
    seed: int = 0
    center_fraction: float = 1.0

    def __call__(self, images: list[UInt8[Tensor, "3 _h _w"]], task: Task) -> list[UInt8[Tensor, "B 3 _s _s"]]:
        """One stack of crops per view, before flips and color operations."""
        if not self.views:
            return [torch.stack([self._center(image) for image in images])]
        return [self._crops(images, task, number, view) for number, view in enumerate(self.views)]

    def _crops(self, images: list[Tensor], task: Task, number: int, view: View) -> UInt8[Tensor, "B 3 s s"]:
        side = view.pixels(self.image_size)
        heights, widths = torch.tensor([image.shape[1:] for image in images]).unbind(1)
        # for all rows at once: one row takes as long as hundreds
        key = {"seed": self.seed, "epoch": task.epoch, "rows": task.rows, "occurrence": task.occurrence}
        boxes = crop_boxes(view, heights, widths, number=number, **key)
        crops = torch.empty(len(images), 3, side, side, dtype=torch.uint8)
        for crop, image, (top, left, height, width) in zip(crops, images, boxes.tolist(), strict=True):
            crop.copy_(resize(image[:, top : top + height, left : left + width], side, side))
        return crops

    def _center(self, image: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 s s"]:
        view = center_view(image.unsqueeze(0), self.image_size, self.center_fraction)[0]
        return (view * 255).round().byte()


class TaskDataset(Dataset):
    """A torch dataset that maps a task to a raw batch, in the main process and in workers."""

    def __init__(self, dataset: ImageDataset, crop_spec: CropSpec) -> None:
        self.dataset = dataset
        self.crop_spec = crop_spec

    def __getitem__(self, key: tuple[int, np.ndarray, np.ndarray | None]) -> RawBatch:
        epoch, rows, occurrence = key
        return self.read(
            Task(epoch, torch.from_numpy(rows), None if occurrence is None else torch.from_numpy(occurrence))
        )

    def read(self, task: Task) -> RawBatch:
        """Read the images of one batch."""
        images, valid = self.dataset.read(task.rows)
        if isinstance(images, list):
            images = self.crop_spec(images, task)
        return RawBatch(task.rows, images, self.dataset.labels[task.rows], valid, task.occurrence)


class Tasks:
    """The remaining tasks; the worker processes of the loader outlive the list."""

    def __init__(self) -> None:
        self.left: Sequence[Task] = []

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        # arrays: a tensor would be sent through shared memory together with all rows of the epoch
        for epoch, rows, occurrence in self.left:
            yield epoch, rows.numpy(), None if occurrence is None else occurrence.numpy()

    def __len__(self) -> int:
        return len(self.left)


class TaskReader:
    """Reads tasks in order: in this process if the images are in memory or there are no workers, else in workers."""

    def __init__(self, dataset: ImageDataset, crop_spec: CropSpec, num_workers: int, keep_workers: bool) -> None:
        self.reader = TaskDataset(dataset, crop_spec)
        self.num_workers = 0 if dataset.size else num_workers
        self.keep_workers = keep_workers
        self._tasks = Tasks()
        self._loader: DataLoader | None = None
        self._iterator: Any = None
        _task_readers.add(self)

    def __call__(self, tasks: Sequence[Task]) -> Iterator[RawBatch]:
        """Yield one batch per task; the result does not depend on the number of workers.

        Raises:
            DataError: If workers die repeatedly at the same task.
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
                        self.end_workers()  # now, since Lightning does not exhaust the iterator
                    yield batch
            except (RuntimeError, OSError, EOFError) as error:
                self.end_workers()
                if not _is_worker_death(error):
                    raise
                failures += 1
                if failures == _ATTEMPTS:
                    raise self._report_death(error, tasks[done : done + 2 * self.num_workers]) from error

    def end_workers(self) -> None:
        """End the worker processes; the next task starts new ones."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()
        self._iterator = self._loader = None

    def _started(self) -> Iterator[RawBatch]:
        with _without_signal_handler(), without_sigterm():
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
                worker_init_fn=_ignore_signals,
                # a generator of its own: by default, seeds of workers come from the global one, which dropout uses
                generator=torch.Generator().manual_seed(self.reader.crop_spec.seed),
            )
        return self._loader

    def _report_death(self, error: Exception, in_flight: Sequence[Task]) -> RuntimeError:
        rows = torch.cat([task.rows for task in in_flight]).tolist()
        names = ", ".join(self.reader.dataset.name(row) for row in rows[:3])
        return RuntimeError(
            f"{error} while reading rows {rows}, the first being {names}: "
            "if it ran out of memory, lower data.num_workers or data.batch_size"
        )


_task_readers: WeakSet[TaskReader] = WeakSet()


@atexit.register
def _end_all_workers() -> None:
    """End all workers at exit: Python would wait forever for workers that ignore its signal."""
    for reading in list(_task_readers):
        reading.end_workers()


def _unchanged(batch: Any) -> Any:
    return batch


def _is_worker_death(error: Exception) -> bool:
    """Whether an error means that a worker died: torch noticed it, or its shared memory is gone."""
    return isinstance(error, OSError | EOFError) or str(error).startswith("DataLoader worker")


@contextmanager
def _without_signal_handler() -> Iterator[None]:
    """A context without torch's signal handler, which raises at any point of the main process when a worker dies.

    The loader that waits for a batch detects the death too, within five seconds, and can replace the worker there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


@contextmanager
def without_sigterm() -> Iterator[None]:
    """A context in which SIGTERM waits, in this thread and in all threads of processes that it forks.

    Some libraries start a thread in every forked process. SIGTERM would reach a worker through it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_signals(worker: int) -> None:
    """Ignore Ctrl-C and a scheduler's signals in a worker; the main process handles them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(1)
