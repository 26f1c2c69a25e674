"""Carrying out tasks on this machine: in this process, or in several that end with it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_process
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from ssl_lightning.engines.engine import Count, Engine, ResultT, TaskT
from ssl_lightning.errors import DataError, RunStoppedError

_WAIT = 0.5
_counted: Any = None
"""Files and bytes that all processes have counted: an array in shared memory."""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalProcesses(Engine):
    """Processes of this machine.

    Args:
        workers: Number of processes; this process does the work alone for one.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def carry_out(
        self, function: Callable[[TaskT, Count], ResultT], tasks: Sequence[TaskT], count: Count
    ) -> Iterator[tuple[int, ResultT | DataError]]:
        """See `Engine.carry_out`."""
        workers = min(self.workers, len(tasks))
        if workers <= 1:
            return _here(function, tasks, count)
        return _in_processes(function, tasks, count, workers)


def _here(
    function: Callable[[TaskT, Count], ResultT], tasks: Sequence[TaskT], count: Count
) -> Iterator[tuple[int, ResultT | DataError]]:
    for place, task in enumerate(tasks):
        try:
            result: ResultT | DataError = function(task, count)
        except DataError as error:
            result = error
        yield place, result


def _in_processes(
    function: Callable[[TaskT, Count], ResultT], tasks: Sequence[TaskT], count: Count, workers: int
) -> Iterator[tuple[int, ResultT | DataError]]:
    context = multiprocessing.get_context("forkserver")  # imports once, and forks a process without threads
    context.set_forkserver_preload([function.__module__])
    counted = context.Array("q", 2)
    shown = (0, 0)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _prepare, (counted,))
    finished = 0
    try:
        waiting = {pool.submit(_counting, function, task): place for place, task in enumerate(tasks)}
        while waiting:
            done, _ = wait(waiting, timeout=_WAIT, return_when=FIRST_COMPLETED)
            files, size = counted
            count(files - shown[0], size - shown[1])
            shown = (files, size)
            for future in done:
                place = waiting.pop(future)
                result = _result(future, finished, len(tasks))
                finished += not isinstance(result, DataError)
                yield place, result
    except BaseException:
        _end(pool, others)
        raise
    pool.shutdown()


def _result(future: "Future[ResultT]", done: int, count: int) -> "ResultT | DataError":
    try:
        return future.result()
    except DataError as error:
        return error
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


def _counting(function: Callable[[TaskT, Count], ResultT], task: TaskT) -> ResultT:
    return function(task, _count)


def _count(files: int, size: int) -> None:
    with _counted.get_lock():
        _counted[0] += files
        _counted[1] += size
