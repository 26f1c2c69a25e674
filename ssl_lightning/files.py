"""Atomic writes: a temporary file in the same folder, fsync, rename."""

import errno
import hashlib
import logging
import os
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import BinaryIO

from ssl_lightning.errors import UsageError

log = logging.getLogger(__name__)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> str:
    """Replace the content of `path`, or leave it unchanged.

    Args:
        path: File to create or replace.
        write: Writes the content to an open file.

    Returns:
        The SHA-256 of the written file.

    Raises:
        OSError: For example if the disk is full or read-only. The old file is unchanged and no temporary file remains.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        digest = sha256_of(temporary)  # read back from the disk
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return digest


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def reject_unwritable(path: Path, suggestion: str) -> None:
    """Create the folder of a file and check that the file can be written, before its content is computed.

    Logs that an existing file will be replaced.

    Args:
        path: File that will be written later.
        suggestion: What to do, for the error.

    Raises:
        UsageError: If it cannot be written.
    """
    probe = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        probe.touch()
        probe.unlink()
        if path.exists():
            log.info(f"{path} exists and will be replaced")
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise UsageError(f"found {path}, which cannot be written ({reason}); {suggestion}") from error


def sweep_temporary(folder: Path, name: str | None = None) -> int:
    """Remove temporary files of killed writers, of one file or of all files in a folder; return their number."""
    leftovers = list(folder.glob(f".{'*' if name is None else escape(name)}.tmp-*"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    """The temporary file that this process renames to `path`."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
