"""Carrying out tasks on a Ray cluster. Ray starts the workers, and carries out again what a lost worker leaves.

What is sent to workers: a function by its name, a task and a result, all of plain values. Large results are files on a
disk that all machines share.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic
from urllib.parse import urlsplit
from warnings import catch_warnings

import torch

from ssl_lightning import __version__
from ssl_lightning.engines.engine import Count, Engine, ResultT, TaskT
from ssl_lightning.engines.local import cores
from ssl_lightning.errors import DataError, RunStoppedError, UsageError

ATTEMPTS = 4
"""Times that a task is carried out if its worker dies each time."""
_SECONDS = 10
"""Time limit of the first connection to an address."""
_WAIT = 0.5
_STORE = 256 << 20
"""Bytes of Ray's memory for tasks and results; both are small."""
_OURS = "SSL_LIGHTNING_"


class RayCluster(Engine):
    """Workers of a Ray cluster: an own one on this machine, or one that runs.

    Args:
        address: Of a cluster, ray://<host>:<port>; None for one on this machine that ends with the work.
        workers: Number of tasks at a time; None for one for each core of the cluster.
        gpus: GPUs that each task takes.

    Raises:
        UsageError: If the package ray is not installed.
    """

    def __init__(self, address: str | None = None, workers: int | None = None, gpus: int = 0) -> None:
        self.address, self.workers, self.gpus = address, workers, gpus
        self._ray = _package()

    def carry_out(
        self, function: Callable[[TaskT, Count], ResultT], tasks: Sequence[TaskT], count: Count
    ) -> Iterator[tuple[int, ResultT | DataError]]:
        """See `Engine.carry_out`."""
        if not tasks:
            return
        with self._connected():
            remote = self._ray.remote(_carried_out).options(
                num_cpus=1, num_gpus=self.gpus, max_retries=ATTEMPTS - 1, retry_exceptions=False
            )
            sender, left, finished = _Sender.here(), iter(enumerate(tasks)), 0
            waiting: dict[Any, int] = {}
            while True:
                for place, task in islice(left, max(0, self._most() - len(waiting))):
                    waiting[remote.remote(function, task, sender)] = place
                if not waiting:
                    return
                done, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_WAIT)
                for reference in done:
                    place = waiting.pop(reference)
                    outcome = self._outcome(reference, finished, len(tasks))
                    count(outcome.files, outcome.size)
                    result = outcome.result
                    if isinstance(result, Exception) and not isinstance(result, DataError):
                        raise result
                    finished += not isinstance(result, DataError)
                    yield place, result

    def gpus_of_cluster(self) -> int:
        """Number of GPUs of the cluster."""
        with self._connected():
            return int(self._ray.cluster_resources().get("GPU", 0))

    def _most(self) -> int:
        """Tasks that are sent at a time: those that run, and as many that wait, since each takes memory."""
        kind = "GPU" if self.gpus else "CPU"
        running = self.workers or max(1, int(self._ray.cluster_resources().get(kind, 1)))
        return running if self.workers else 2 * running

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """The connection to the cluster; one that the program has already stays."""
        ray = self._ray
        if ray.is_initialized():
            yield
            return
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            ray.init(
                "local",
                num_cpus=self.workers or cores(),
                object_store_memory=_STORE,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
        else:
            _reject_silent(self.address)
            try:
                with catch_warnings(action="ignore"):  # the error has their reason
                    ray.init(self.address, **quiet)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                raise _silent(self.address, error) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _outcome(self, reference: Any, done: int, count: int) -> "_Outcome[Any]":
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if "ModuleNotFoundError" in str(error):
                reason = next(line for line in str(error).splitlines()[::-1] if "ModuleNotFoundError" in line)
                raise UsageError(
                    f"found a worker of the Ray cluster without this package ({reason.strip()}); install the same "
                    "version on each machine"
                ) from error
            raise
        except (errors.RayError, ConnectionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunStoppedError(
                f"found a worker of the Ray cluster that died {ATTEMPTS} times at one part, or a cluster that ended "
                f"({reason}); {done} of {count} parts are finished and kept: give the same command again"
            ) from error


@dataclass(frozen=True)
class _Sender:
    """The process that sends tasks. Workers open its folder, so that relative paths mean the same."""

    folder: str
    variables: dict[str, str]
    version: str
    host: str

    @classmethod
    def here(cls) -> "_Sender":
        """This process."""
        ours = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
        return cls(os.getcwd(), ours, __version__, socket.gethostname())


@dataclass(frozen=True)
class _Outcome(Generic[ResultT]):
    """What a task returned, or the error that it raised, and what it counted."""

    result: ResultT | Exception
    files: int = 0
    size: int = 0


def _carried_out(function: Callable[[TaskT, Count], ResultT], task: TaskT, sender: _Sender) -> "_Outcome[ResultT]":
    """Carry out a task in a worker."""
    host, done = socket.gethostname(), [0, 0]

    def count(files: int, size: int) -> None:
        done[0] += files
        done[1] += size

    try:
        _move_to(sender, host)
        return _Outcome(function(task, count), *done)
    except DataError as error:
        return _Outcome(error if host == sender.host else DataError(f"{error} (on the machine {host})"), *done)
    except (RunStoppedError, OSError) as error:
        return _Outcome(error, *done)


def _move_to(sender: _Sender, host: str) -> None:
    if sender.version != __version__:
        raise UsageError(
            f"found version {__version__} of this package on the machine {host}; expected {sender.version}, as on "
            f"{sender.host}: install the same version on each machine"
        )
    try:
        os.chdir(sender.folder)
    except OSError as error:
        raise UsageError(
            f"found no folder {sender.folder} on the machine {host} ({error.strerror}); expected that of the command, "
            "on a disk that all machines share"
        ) from error
    os.environ.update(sender.variables)
    torch.set_num_threads(1)


def _package() -> Any:
    """The package ray, without statistics of usage and messages.

    The variables count when it is imported for the first time.

    Raises:
        UsageError: If it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # also on Linux, and of clusters that Ray starts here alone: they listen to this machine only
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray  # an extra
    except ImportError as error:
        raise UsageError("--engine ray needs the package ray: pip install 'ssl-lightning[ray]'") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _reject_silent(address: str) -> None:
    """Reject an address at which nothing listens, before Ray waits for it.

    Raises:
        UsageError: With the reason.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError as error:
        raise _silent(address, error) from error
    if not host or not port:
        raise UsageError(f"found the address {address!r} of a Ray cluster; expected ray://<host>:<port>")
    try:
        socket.create_connection((host, port), _SECONDS).close()
    except OSError as error:
        raise _silent(address, error) from error


def _silent(address: str, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:200]
    return UsageError(
        f"found no Ray cluster at {address} ({reason}); expected the client server of `ray start --head`, such as "
        "ray://<host>:10001: start one, and set RAY_AUTH_MODE=token if the cluster has a token"
    )
