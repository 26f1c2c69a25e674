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
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """

    delay: float
    number: int = signal.SIGKILL
    worker: int | None = None


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
            sys.argv = ["faulty.py", faulty]
            importlib.import_module("faulty")  # hooks itself in here, in the child alone
            leave_out_figures()
            install(fault, report)
            if watch is not None:
                sys.path.insert(0, str(folder))
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                watch_effects(watch)
            sys.argv = ["ssl-lightning", *arguments]
            from ssl_lightning.entry import main

            return _exit_code(main)

        return self._child(body, reactions, limit)

    def call(self, function: Callable[[], Any], limit: float = LIMIT) -> tuple[Any, Done]:
        """The result of a function that may crash its process, None if it did."""
        answer = self.log.with_suffix(".json")
        answer.unlink(missing_ok=True)

        def body(report: int) -> int:
            answer.write_text(json.dumps(function()))
            return 0

        done = self._child(body, (), limit)
        return (json.loads(answer.read_text()) if answer.exists() else None), done

    def _child(self, body: Callable[[int], int], reactions: Sequence[Reaction], limit: float) -> Done:
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _live(body, writing, self.log)
        os.close(writing)
        try:
            return self._watch(pid, reading, reactions, limit)
        finally:
            os.close(reading)

    def _watch(self, pid: int, reading: int, reactions: Sequence[Reaction], limit: float) -> Done:
        start, handle = time.monotonic(), os.pidfd_open(pid)
        sent, reported = 0, False
        try:
            ready, _, _ = select.select([reading, handle], [], [], limit)
            if reading in ready and os.read(reading, 1):
                reported, start = True, time.monotonic()
                for reaction in reactions:
                    time.sleep(max(0.0, start + reaction.delay - time.monotonic()))
                    sent += _send(pid, handle, reaction)
            ready, _, _ = select.select([handle], [], [], max(0.0, limit - (time.monotonic() - start)))
            hung = not ready
            if hung:
                os.killpg(pid, signal.SIGKILL)
        finally:
            os.close(handle)
        _, status = os.waitpid(pid, 0)
        code = HUNG if hung else os.waitstatus_to_exitcode(status)
        output = self.log.read_text(errors="replace")
        return Done(code, output, time.monotonic() - start, reported, sent)


def _send(pid: int, handle: int, reaction: Reaction) -> int:
    """Send a signal, if the process still lives; how many were sent."""
    target = pid
    if reaction.worker is not None:
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not workers:
            return 0
        target = int(workers[reaction.worker % len(workers)])
    if select.select([handle], [], [], 0)[0]:
        return 0
    os.kill(target, reaction.number)
    return 1


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
