"""Carrying out the units of a build: in this process, or in several that end with it."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ssl_lightning.data.manifest.parts import Built, Earlier, build_part
from ssl_lightning.data.manifest.units import Unit
from ssl_lightning.data.options import SourceOptions
from ssl_lightning.errors import DataError, RunStoppedError
from ssl_lightning.progress import progress

log = logging.getLogger(__name__)
Work = tuple[Unit, list[Earlier]]
"""A unit, and parts of an earlier build of the same shard or folder."""
Finished = dict[int, Built]
_WAIT = 0.5
_counted: Any = None
"""Files and bytes that all processes have counted: an array in shared memory."""


def carry_out(work: list[Work], options: SourceOptions, folder: Path, workers: int) -> tuple[Finished, list[DataError]]:
    """Build the parts of units.

    Args:
        work: Units.
        options: How files are decoded.
        folder: Of the parts.
        workers: Number of processes; this process does the work alone for one.

    Returns:
        What each part took by the position of its unit, and the errors of damaged shards.

    Raises:
        OSError: If a part cannot be written.
        RunStoppedError: If a process died.
    """
    total = sum(unit.size for unit, _ in work)
    with progress(range(max(1, total)), "reading images", "B", shown=bool(work), is_size=True) as bar:
        shown = _Shown(bar)
        if min(workers, len(work)) <= 1:
            return _here(work, options, folder, shown)
        return _in_processes(work, options, folder, min(workers, len(work)), shown)


class _Shown:
    """The progress of a build in bytes, with its rate in files."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.began = bar, time.monotonic()
        self.files = self.size = 0

    def add(self, files: int, size: int) -> None:
        self.files, self.size = self.files + files, self.size + size
        seconds = time.monotonic() - self.began
        if seconds > 1:
            self.bar.set_description(f"reading images, {self.files / seconds:,.0f} files/s", refresh=False)
        self.bar.update(size)

    def set(self, files: int, size: int) -> None:
        self.add(files - self.files, size - self.size)


def _here(work: list[Work], options: SourceOptions, folder: Path, shown: _Shown) -> tuple[Finished, list[DataError]]:
    finished, errors = {}, []
    for place, (unit, earlier) in enumerate(work):
        try:
            finished[place] = build_part(unit, options, folder, earlier, shown.add)
        except DataError as error:
            errors.append(error)
    return finished, errors


def _in_processes(
    work: list[Work], options: SourceOptions, folder: Path, workers: int, shown: _Shown
) -> tuple[Finished, list[DataError]]:
    context = multiprocessing.get_context("forkserver")  # imports once, and forks a process without threads
    context.set_forkserver_preload([__name__])
    counted = context.Array("q", 2)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _prepare, (counted,))
    finished, errors = {}, []
    try:
        waiting = {
            pool.submit(_build, unit, options, folder, earlier): place for place, (unit, earlier) in enumerate(work)
        }
        while waiting:
            done, _ = wait(waiting, timeout=_WAIT, return_when=FIRST_COMPLETED)
            shown.set(*counted)
            for future in done:
                place = waiting.pop(future)
                try:
                    finished[place] = _result(future, len(finished), len(work))
                except DataError as error:
                    errors.append(error)
    except BaseException:
        _end(pool, others)
        raise
    pool.shutdown()
    return finished, errors


def _result(future: "Future[Built]", done: int, count: int) -> Built:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RunStoppedError(
            f"found a process that died while it read images, perhaps of too little memory; {done} of {count} parts "
            "are finished and kept: give the same command again, with fewer --workers"
        ) from error


def _end(pool: ProcessPoolExecutor, others: set[BaseProcess]) -> None:
    """End the processes of a pool at once; what they write is temporary until it is complete."""
    processes = set(multiprocessing.active_children()) - others
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _prepare(counted: Any) -> None:
    global _counted
    _counted = counted
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this one
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    main = multiprocessing.parent_process()
    assert main is not None
    wait_for_process([main.sentinel])
    os._exit(1)


def _build(unit: Unit, options: SourceOptions, folder: Path, earlier: list[Earlier]) -> Built:
    return build_part(unit, options, folder, earlier, _count)


def _count(files: int, size: int) -> None:
    with _counted.get_lock():
        _counted[0] += files
        _counted[1] += size
