"""Give a file new content, or leave it as it was: temporary file in the same folder, fsync, rename."""

import errno
import hashlib
import os
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import BinaryIO

from ssl_lightning.errors import UsageError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> str:
    """Give `path` new content, or leave it as it was.

    Args:
        path: File to make or replace.
        write: Writes the content to a file that is open for it.

    Returns:
        The sha256 of what lies on disk.

    Raises:
        OSError: As it comes (disk full, read-only); the old file is untouched and no temporary file stays.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        digest = sha256_of(temporary)  # of what was written, not of what was meant
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return digest


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def reject_unwritable(path: Path, suggestion: str) -> None:
    """Make the folder of a file, and find out that the file cannot be written there before what it is to hold is made.

    Args:
        path: File to make or replace, later.
        suggestion: What to do about it, for the error.

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
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise UsageError(f"found {path}, which cannot be written ({reason}); {suggestion}") from error


def sweep_temporary(folder: Path, name: str | None = None) -> int:
    """Remove what writers that were killed left behind, of one file or of all; how many files."""
    leftovers = list(folder.glob(f".{'*' if name is None else escape(name)}.tmp-*"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    """What this process writes before it becomes `path`."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
