"""Sessions of a run: each start of its command, with its time, its machine, and how it ended; kept in run.json."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ssl_lightning.errors import RunStoppedError, one_line
from ssl_lightning.report.run_json import SESSIONS, sessions_of
from ssl_lightning.runs.directory import RunDirectory

FINISHED = "finished"


@contextmanager
def session(run: RunDirectory, command: str, step: Callable[[], int]) -> Iterator[None]:
    """A context that records in run.json when it was entered and left, and at which steps.

    A process that is killed leaves no end. The caller holds the lock of the run.

    Args:
        run: The run, with its run.json written.
        command: The command line.
        step: Returns the optimizer steps so far.
    """
    own = {"command": command, "started": _now(), "first_step": step(), "machine": machine()}
    _append(run, own)
    try:
        yield
    except BaseException as error:
        code = getattr(error, "exit_code", None)
        reason = one_line(str(error)) if isinstance(error, RunStoppedError) else f"{type(error).__name__}: {error}"
        _replace(run, own | {"ended": _now(), "last_step": step(), "end": one_line(reason)[:300], "exit_code": code})
        raise
    _replace(run, own | {"ended": _now(), "last_step": step(), "end": FINISHED, "exit_code": 0})


def machine() -> dict[str, Any]:
    """Processor, cores, graphics cards and versions; without names of hosts or users."""
    cards = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": cards,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ssl_lightning": version("ssl-lightning"),
    }


def _append(run: RunDirectory, own: dict[str, Any]) -> None:
    facts = run.read("run.json") or {}
    run.write("run.json", facts | {SESSIONS: [*sessions_of(facts), own]})


def _replace(run: RunDirectory, own: dict[str, Any]) -> None:
    """Replace the last session; a disk that is full must not hide why the run ended."""
    facts = run.read("run.json") or {}
    with suppress(OSError):
        run.write("run.json", facts | {SESSIONS: [*sessions_of(facts)[:-1], own]})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _processor() -> str:
    """The model name of the processor, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
