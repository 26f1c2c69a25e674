"""BlockCache: blocks of remote files on the local disk, up to a number of bytes, for all processes of a machine."""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ssl_lightning.errors import UsageError

FOLDER, GIGABYTES = "SSL_LIGHTNING_CACHE", "SSL_LIGHTNING_CACHE_GB"
"""Environment variables: the folder of the cache, and its size."""
DEFAULT_GIGABYTES = 20.0
_SLACK = 64 << 20
"""Bytes that a process writes before it looks at the size of the folder again, at most."""


class BlockCache:
    """Files named by what they hold. The least recently used leave first; a file is whole or not there.

    The folder may grow beyond its size by up to 64 MiB for each process that writes.

    Args:
        folder: Created on the first write.
        most_bytes: Its size.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._unchecked = most_bytes  # of an unknown number of bytes at the start

    def path(self, key: str, number: int | str) -> Path:
        """Where a block is, whether it is there or not.

        Args:
            key: Address and version of a file.
            number: Of the block.
        """
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:40]
        return self.folder / name[:2] / f"{name}-{number}"

    def get(self, key: str, number: int, size: int) -> bytes | None:
        """A block; None if it is not there, or has another size, as after a loss of power."""
        path = self.path(key, number)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return content if len(content) == size else None

    def put(self, key: str, number: int, content: bytes) -> None:
        """Keep a block. A full or read-only disk keeps nothing, and the reader has the block anyway."""
        with contextlib.suppress(OSError), self.writing(self.path(key, number)) as descriptor:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[int]:
        """A descriptor of a temporary file that takes the place of a path at the end, if there is no error."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        try:
            try:
                yield descriptor
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        self._unchecked += size
        if self._unchecked > min(_SLACK, self.most_bytes // 16):
            self._unchecked = 0
            self.shrink(keep=path)

    def shrink(self, keep: Path | None = None) -> None:
        """Remove the files that were used least recently until nine tenths of the size are left, if it is exceeded.

        Args:
            keep: A file that stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return  # another process is doing it
            files = list(self._files())
            total = sum(size for _, size, _ in files)
            if total <= self.most_bytes:
                return
            for _, size, path in sorted(files):
                if total <= 0.9 * self.most_bytes:
                    return
                if path != str(keep):
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                    total -= size

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Time of the last use, size and path of each file."""
        for folder in os.scandir(self.folder):
            if folder.is_dir(follow_symlinks=False) and len(folder.name) == 2:
                for entry in os.scandir(folder):
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        yield status.st_mtime, status.st_size, entry.path


def cache() -> BlockCache:
    """The cache that the environment variables describe.

    Raises:
        UsageError: If its size is no positive number.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.environ.get(FOLDER) or os.path.join(home, "ssl_lightning")
    text = os.environ.get(GIGABYTES) or str(DEFAULT_GIGABYTES)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < 1e9:
        raise UsageError(f"found {GIGABYTES}={text}; expected a positive number of gigabytes, such as 20")
    wanted = (Path(folder), int(gigabytes * 1e9))
    if _held.get("cache") is None or (_held["cache"].folder, _held["cache"].most_bytes) != wanted:
        _held["cache"] = BlockCache(*wanted)
    return _held["cache"]


_held: dict[str, BlockCache] = {}
