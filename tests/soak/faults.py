"""One fault in a child process: at the n-th event of a kind it is killed, fails, waits, or reports the event.

`tests/runs/faulty.py` has the hooks that need exact steps and clusterings; here are those for random moments: every
operation on a file below the run folder, every part of a clustering, and every step, each of which can be reported to
the parent process, which kills or signals the child a random time later.
"""

import os
import pathlib
import re
import signal
import sys
import time
from dataclasses import dataclass
from typing import Literal

STORAGE = "storage"


@dataclass(frozen=True)
class Fault:
    """What happens when.

    Attributes:
        event: "step" (a training step has ended), "storage" (open, write, fsync, replace, unlink or symlink of a file),
            "clustering" (one begins), "features", "kmeans", "publish" (its parts begin).
        number: The n-th event that matches.
        match: Regular expression that the event's details have to match: for files "<operation> <path>".
        action: "kill" this process; "fail" with an OSError; "report" to the parent process alone, which learns of a
            failure too. A write is cut in half before it is killed or fails.
        errno: Of the OSError.
        lasting: All later events fail too.
        pause: Seconds to wait after the report, so that a signal arrives during the event.
    """

    event: str
    number: int = 1
    match: str = ""
    action: Literal["kill", "fail", "report"] = "kill"
    errno: int = 0
    lasting: bool = False
    pause: float = 0.0


class Injector:
    """Counts events and acts on the one that is due."""

    def __init__(self, fault: Fault | None, report: int) -> None:
        self.fault, self.report, self.count = fault, report, 0

    def is_due(self, event: str, details: str = "") -> bool:
        """Count an event."""
        fault = self.fault
        if fault is None or fault.event != event or not re.search(fault.match, details):
            return False
        self.count += 1
        return self.count == fault.number or (fault.lasting and self.count > fault.number)

    def act(self) -> None:
        """Kill, fail or report."""
        assert self.fault is not None
        if self.fault.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(self.report, b".")
        if self.fault.action == "fail":
            raise OSError(self.fault.errno, os.strerror(self.fault.errno))
        until = time.monotonic() + self.fault.pause
        while time.monotonic() < until:  # a signal handler that raises ends the loop, another one does not
            time.sleep(0.01)

    def happened(self, event: str, details: str = "") -> None:
        """Count an event and act if it is due."""
        if self.is_due(event, details):
            self.act()


class WatchedFile:
    """A file that is open for writing, each write an event."""

    def __init__(self, file, injector: Injector) -> None:
        self._file, self._injector = file, injector

    def write(self, data):
        if self._injector.is_due(STORAGE, f"write {self._file.name}"):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            self._injector.act()
            data = data[len(data) // 2 :]
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def __iter__(self):
        return iter(self._file)


def install(fault: Fault | None, report: int) -> None:
    """Watch files, clusterings and steps of this process; it does nothing else."""
    injector = Injector(fault, report)
    if fault is not None and fault.event == STORAGE:
        _watch_files(injector)
    _watch_training(injector)


def _watch_files(injector: Injector) -> None:
    inner_open = pathlib.Path.open

    def opened(self, mode="r", *args, **kwargs):
        if not set(mode) & set("wax+"):
            return inner_open(self, mode, *args, **kwargs)
        injector.happened(STORAGE, f"open {self}")
        return WatchedFile(inner_open(self, mode, *args, **kwargs), injector)

    pathlib.Path.open = opened
    for name in ("replace", "unlink", "symlink", "fsync"):
        setattr(os, name, _watched(getattr(os, name), name, injector))


_PLACE = {"replace": 1, "symlink": 1, "unlink": 0}
"""Which argument of the function names the file that is changed."""


def _watched(inner, name: str, injector: Injector):
    def call(*args, **kwargs):
        target = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else args[_PLACE[name]]
        injector.happened(STORAGE, f"{name} {os.fspath(target)}")
        return inner(*args, **kwargs)

    return call


def _watch_training(injector: Injector) -> None:
    from ssl_lightning.callbacks import Recluster, Throughput, WriteClusters, recluster
    from ssl_lightning.clustering import KMeans

    def before(owner, name: str, event: str) -> None:
        inner = getattr(owner, name)

        def call(*args, **kwargs):
            injector.happened(event)
            return inner(*args, **kwargs)

        setattr(owner, name, call)

    before(Recluster, "recluster", "clustering")
    before(WriteClusters, "on_predict_end", "clustering")
    before(recluster, "embed_dataset", "features")
    before(WriteClusters, "on_predict_batch_end", "features")
    before(KMeans, "__call__", "kmeans")
    before(recluster, "publish", "publish")
    inner_step = Throughput.on_train_batch_end  # tests/runs/faulty.py has its own in here, which notes the loss

    def after_step(self, *args, **kwargs):
        inner_step(self, *args, **kwargs)
        injector.happened("step")

    Throughput.on_train_batch_end = after_step


def leave_out_figures() -> None:
    """The report's figures are half the time of so short a run; the table that they are drawn from is compared."""
    from ssl_lightning.callbacks.write_report import WriteReport

    assert callable(WriteReport._update)
    WriteReport._update = lambda self, trainer, module: None


def watch_effects(path: pathlib.Path) -> None:
    """Note what files from strangers must not bring about: processes and connections."""
    ours = "import sys, json; print(json.dumps(sys.path))"  # of typeshed_client, which the parser reads types with
    known = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "socket.connect", "socket.getaddrinfo")

    def hook(event: str, arguments: tuple) -> None:
        if event in known and ours not in str(arguments):
            with open(path, "a") as file:
                file.write(f"{event} {str(arguments[:2])[:100]}\n")

    sys.addaudithook(hook)
