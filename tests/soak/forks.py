"""Processes that cost no imports: one parent imports everything once, and forks a child for every run.

The parent computes nothing in parallel and starts no thread of its own, so a child begins as a fresh process would.
"""

import atexit
import importlib
import json
import logging
import os
import pkgutil
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .faults import Fault, install, leave_out_figures, watch_effects

ROOT = Path(__file__).parents[2]
LABORATORY = ROOT / "tests" / "runs"
LIMIT = 300.0
"""Seconds after which a child counts as hung."""


@dataclass(frozen=True)
class Reaction:
    """What the parent does after a child has reported an event.

    Attributes:
        delay: Seconds after the event.
        number: The signal.
        worker: Which of the child's own child processes gets it; None for the child itself.
        rank: Which of two children gets it.
    """

    delay: float
    number: int = signal.SIGKILL
    worker: int | None = None
    rank: int = 0


@dataclass(frozen=True)
class Done:
    """How a child ended.

    Attributes:
        code: Exit code, negative for a signal.
        output: Standard output and error.
        seconds: How long it took; after the first reaction, if there was one.
        reported: Whether it came to the event.
        sent: Signals that still found it.
    """

    code: int
    output: str
    seconds: float
    reported: bool
    sent: int

    @property
    def is_hung(self) -> bool:
        """Whether it had to be killed because it did not end."""
        return self.code == HUNG


HUNG = -1000
MEMORY = 16 << 30
"""Bytes of address space of a command that is watched."""


def import_everything() -> None:
    """All that a run may import, without a thread or a computation."""
    os.environ["SSL_LIGHTNING_PLUGINS"] = "lab"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["WANDB_MODE"] = "disabled"
    sys.path[:0] = [str(ROOT), str(LABORATORY)]
    import matplotlib.pyplot
    import pyarrow.parquet
    import sklearn.datasets
    import torch

    import ssl_lightning

    del matplotlib, pyarrow, sklearn
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(ssl_lightning.__path__, "ssl_lightning."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("lab")
    logging.getLogger("ssl_lightning").setLevel(logging.ERROR)  # of this process; a command of a child sets its own


class Forks:
    """Starts children one at a time.

    Args:
        log: What a child prints goes here; the next one overwrites it.
    """

    def __init__(self, log: Path) -> None:
        self.log = log

    def command(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        fault: Fault | None = None,
        faulty: str = "none",
        reactions: Sequence[Reaction] = (),
        folder: Path = ROOT,
        limit: float = LIMIT,
        watch: Path | None = None,
    ) -> Done:
        """Run a command line of the package, with one fault of ours or of tests/runs/faulty.py.

        With `watch`, processes that it starts and connections that it makes are noted there; its folder comes first
        where Python looks for modules.
        """

        def body(report: int) -> int:
            os.chdir(folder)
            os.environ.update(environment)
            return _command(arguments, fault, faulty, report, watch)

        return self._watch([self._fork(body, self.log)], reactions, limit)[0]

    def pair(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        fault: Fault | None = None,
        reactions: Sequence[Reaction] = (),
        limit: float = LIMIT,
    ) -> list[Done]:
        """Run a command line in two processes, as torchrun starts them; the fault is that of the first."""
        port = _free_port()

        def body(rank: int, report: int) -> int:
            os.chdir(ROOT)
            os.environ.update(environment | _of_torchrun(rank, port))
            from lightning.pytorch.utilities import rank_zero_only

            rank_zero_only.rank = rank  # noted when it was imported, in the parent
            return _command(arguments, None if rank else fault, "none", report, None)

        logs = self.log, self.log.with_suffix(".1.log")
        children = [self._fork(partial(body, rank), log) for rank, log in enumerate(logs)]
        return self._watch(children, reactions, limit)

    def call(self, function: Callable[[], Any], limit: float = LIMIT) -> tuple[Any, Done]:
        """The result of a function that may crash its process, None if it did."""
        answer = self.log.with_suffix(".json")
        answer.unlink(missing_ok=True)

        def body(report: int) -> int:
            answer.write_text(json.dumps(function()))
            return 0

        (done,) = self._watch([self._fork(body, self.log)], (), limit)
        return (json.loads(answer.read_text()) if answer.exists() else None), done

    def _fork(self, body: Callable[[int], int], log: Path) -> "Child":
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _live(body, writing, log)
        os.close(writing)
        return Child(pid, os.pidfd_open(pid), reading, log)

    def _watch(self, children: list["Child"], reactions: Sequence[Reaction], limit: float) -> list[Done]:
        """Wait for the first child's report, react, and wait for the end of all."""
        first, start, sent, reported = children[0], time.monotonic(), 0, False
        ready, _, _ = select.select([first.report, first.handle], [], [], limit)
        if first.report in ready and os.read(first.report, 1):
            reported, start = True, time.monotonic()
            for reaction in reactions:
                time.sleep(max(0.0, start + reaction.delay - time.monotonic()))
                sent += children[reaction.rank].send(reaction)
        return [child.end(start, limit, reported, sent) for child in children]


@dataclass(frozen=True)
class Child:
    """A process of ours.

    Attributes:
        pid: Its number.
        handle: Readable when it has ended.
        report: Readable when it has reported its event.
        log: What it prints.
    """

    pid: int
    handle: int
    report: int
    log: Path

    def has_ended(self, seconds: float = 0) -> bool:
        """Whether it ends within so many seconds."""
        return bool(select.select([self.handle], [], [], max(0.0, seconds))[0])

    def send(self, reaction: Reaction) -> int:
        """Send a signal, if the process still lives; how many were sent."""
        target = self.pid
        if reaction.worker is not None:
            workers = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            if not workers:
                return 0
            target = int(workers[reaction.worker % len(workers)])
        if self.has_ended():
            return 0
        os.kill(target, reaction.number)
        return 1

    def end(self, start: float, limit: float, reported: bool, sent: int) -> Done:
        """Wait for its end, or put one to it."""
        hung = not self.has_ended(limit - (time.monotonic() - start))
        if hung:
            os.killpg(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        seconds = time.monotonic() - start
        os.close(self.handle)
        os.close(self.report)
        code = HUNG if hung else os.waitstatus_to_exitcode(status)
        return Done(code, self.log.read_text(errors="replace"), seconds, reported, sent)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _of_torchrun(rank: int, port: int) -> dict[str, str]:
    """The environment that torchrun gives one of two processes."""
    values = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    values |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "soak"}
    return {name: str(value) for name, value in values.items()}


def _command(arguments: Sequence[str], fault: Fault | None, faulty: str, report: int, watch: Path | None) -> int:
    """A command line in a child; with `watch`, what it starts and connects to is noted there."""
    sys.argv = ["faulty.py", faulty]
    importlib.import_module("faulty")  # hooks itself in here, in the child alone
    leave_out_figures()
    install(fault, report)
    if watch is not None:
        sys.path.insert(0, os.getcwd())
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        watch_effects(watch)
    sys.argv = ["ssl-lightning", *arguments]
    from ssl_lightning.entry import main

    return _exit_code(main)


def _live(body: Callable[[int], int], report: int, log: Path) -> None:
    """The whole life of a child."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = body(report)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    """What Python itself makes of the end of a program."""
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()  # the program's, such as the one that ends worker processes
    return code
