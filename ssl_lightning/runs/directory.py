"""The folder of a run: its name, its lock, its inputs, and whether it has finished.

Note:
    The lock is not an flock (as in the library filelock): forked workers of a data loader inherit an flock and keep it
    after the run was killed, and some file systems of clusters have none.
"""

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ssl_lightning.checkpoints.durable import LAST
from ssl_lightning.checkpoints.read import STEP, checkpoints_by_step, newest_valid, whole_digest
from ssl_lightning.errors import LockedRunError, UsageError
from ssl_lightning.files import sha256_of, sweep_temporary, write_text

log = logging.getLogger(__name__)
MOST_CHARACTERS = 64
"""Of the name of a run."""
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{MOST_CHARACTERS}}}")
STALE_AFTER = 600.0
"""Seconds without a heartbeat after which the lock of another machine is stale."""
HEARTBEAT = 30.0
"""Seconds between two heartbeats."""
FRESH = 10.0
"""Seconds for which an empty lock counts as held: its owner is about to write."""
_LONGEST_WORD = 500
_TRIES = 10
"""Attempts to take a lock that other processes take and release."""


class RunDirectory:
    """`<root>/<name>/` with config.yaml, run.json, metrics.csv, checkpoints/, report/ and, at the end, done.json.

    Args:
        root: `--run.dir`.
        name: `--run.name`: letters, digits, `._-`, at most 64.

    Raises:
        UsageError: For a name that could leave the folder, or a folder that cannot be written.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        if not _NAME.fullmatch(name) or set(name) == {"."}:
            raise UsageError(f"found --run.name={name!r}; expected 1 to 64 letters, digits, dots, dashes, underscores")
        self.root, self.name = Path(root), name
        self.path = self.root / name

    def open(self, trains: bool = True) -> None:
        """Create the folder if necessary.

        Args:
            trains: Whether checkpoints are written.

        Raises:
            UsageError: If it cannot be written.
        """
        try:
            (self.checkpoints if trains else self.path).mkdir(parents=True, exist_ok=True)
            write_text(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise UsageError(f"found {self.path}, which cannot be written ({error.strerror}); use --run.dir") from error

    @property
    def checkpoints(self) -> Path:
        """Folder of `step-<n>.ckpt` and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run of this name was started."""
        facts = any((self.path / name).is_file() for name in ("run.json", "done.json"))
        return facts or bool(checkpoints_by_step(self.checkpoints))

    @property
    def is_held(self) -> bool:
        """Whether a living process writes into it."""
        lock = self.path / "LOCK"
        return _is_held(lock, _owner(lock))

    def newest_checkpoint(self) -> Path | None:
        """The valid checkpoint of the highest step."""
        return newest_valid(self.checkpoints) if self.checkpoints.is_dir() else None

    def read(self, name: str) -> dict[str, Any] | None:
        """Content of `run.json` or `done.json`, None if it is missing or damaged."""
        try:
            if not (self.path / name).is_file():  # a pipe would block
                return None
            content = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write `run.json` durably."""
        write_text(self.path / name, json.dumps(content, indent=1, sort_keys=True))

    def finish(self, step: int) -> None:
        """Write `done.json`, last: the final checkpoint, its SHA-256, the number of steps."""
        final = (self.checkpoints / LAST).resolve()
        self.write("done.json", {"checkpoint": final.name, "sha256": sha256_of(final), "steps": step})

    def finished(self) -> dict[str, Any] | None:
        """`done.json` of a finished run; the final checkpoint must exist and match its SHA-256.

        Otherwise the run has not finished, which is logged if there is a `done.json`.
        """
        if not (self.path / "done.json").exists():
            return None
        done = self.read("done.json")
        damage = self._damage(done or {})
        if damage:
            log.warning("found %s, but %s: the run has not finished", self.path / "done.json", damage)
            return None
        return done

    def _damage(self, done: dict[str, Any]) -> str:
        """The reason why a run with this `done.json` has not finished; empty if it has."""
        name, digest, steps = done.get("checkpoint"), done.get("sha256"), done.get("steps")
        if not (isinstance(name, str) and isinstance(digest, str) and isinstance(steps, int) and STEP.fullmatch(name)):
            return "it is damaged"
        final, last = self.checkpoints / name, self.checkpoints / LAST
        if whole_digest(final) != digest:
            return f"{name} is missing or not the checkpoint that it names"
        if not last.is_file() or not (
            last.samefile(final) or sha256_of(last) == digest
        ):  # a copied folder may have no links
            return f"{LAST} is not {name}"
        return ""

    def renew(self) -> None:
        """Set the modification time of `done.json` to now, for make."""
        os.utime(self.path / "done.json")

    def archive(self) -> Path:
        """Rename the folder to `<name>.<n>`."""
        n = next(n for n in range(1, 10**6) if not self.path.with_name(f"{self.name}.{n}").exists())
        aside = self.path.with_name(f"{self.name}.{n}")
        self.path.rename(aside)
        return aside

    def free_name(self) -> str:
        """A similar name that no run has."""
        return next(f"{self.name}-{n}" for n in range(2, 10**6) if not self.path.with_name(f"{self.name}-{n}").exists())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """A context that holds the lock of the folder and removes temporary files of killed writers.

        Raises:
            LockedRunError: If another living process holds it.
        """
        lock = self.path / "LOCK"
        own = f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}\n"
        _take(lock, own)
        stop = threading.Event()
        heart = threading.Thread(target=_beat, args=(lock, stop), daemon=True)
        heart.start()
        try:
            sweep_temporary(self.path)  # only with the lock: a living run may be writing a checkpoint
            sweep_temporary(self.checkpoints)
            yield
        finally:
            stop.set()
            heart.join()
            if _owner(lock) == own:  # unless another process took over after missing heartbeats
                lock.unlink(missing_ok=True)


def _take(lock: Path, own: str) -> None:
    """Create a lock of this process.

    Raises:
        LockedRunError: If another living process holds it.
    """
    for _ in range(_TRIES):
        if _make(lock, own):
            return
        word = _owner(lock)
        if _is_held(lock, word):
            raise LockedRunError(f"found {lock} held by {' '.join((word or '?').split())}; wait for that run or end it")
        if word is not None:
            _clear(lock, word)
    raise LockedRunError(f"found {lock} taken at this moment by another process")


def _make(lock: Path, own: str) -> bool:
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(own)
    return True


def _clear(lock: Path, stale: str) -> None:
    """Remove a stale lock, unless another process has replaced it since it was checked."""
    aside = lock.with_name(
        f".LOCK-{uuid.uuid4().hex}"
    )  # not a name of temporary files: it may belong to a living process
    try:
        lock.rename(aside)  # only one of several processes succeeds
    except FileNotFoundError:
        return
    if _owner(aside) != stale:
        with suppress(FileExistsError):
            os.link(aside, lock)
    aside.unlink()


def _owner(lock: Path) -> str | None:
    """The owner of a lock; empty if it was not written yet, None if there is no lock."""
    if not lock.is_file():  # a pipe would block
        return None
    try:
        return lock.read_bytes()[:_LONGEST_WORD].decode("utf-8", "replace")
    except OSError:
        return None


def _beat(lock: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        with suppress(FileNotFoundError):
            os.utime(lock)


def _is_held(lock: Path, word: str | None) -> bool:
    """A process of this machine holds its lock while it lives; one of another machine while its heartbeats continue."""
    try:
        age = time.time() - lock.stat().st_mtime
    except OSError:
        return False
    try:
        host, pid, started = (word or "").split()
        number = int(pid)
    except ValueError:
        return age < FRESH
    if host != socket.gethostname():
        return age < STALE_AFTER
    return _started(number) == started


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot, to recognize a reused process id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return _alive(pid)


def _alive(pid: int) -> str:
    """Without /proc: whether a process of this id lives. Ids of 0 and below are process groups."""
    if pid <= 0:
        return "ended"
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return "ended"
    except PermissionError:
        return "alive"
    return "alive"
