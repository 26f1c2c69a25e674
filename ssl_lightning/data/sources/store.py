"""Remote files through fsspec: listing, and reading of ranges through the block cache, with retries.

Messages name addresses and kinds of errors, never the text of an error, which may contain credentials.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from ssl_lightning.data.sources.block_cache import cache
from ssl_lightning.errors import DataError, RunStoppedError, UsageError

BLOCK = 1 << 18
"""Bytes of a block of the cache."""
_LARGEST_REQUEST = 32 * BLOCK
ATTEMPTS, FIRST_PAUSE = 4, 0.5
"""Attempts of a request, and seconds after the first; each pause is twice as long as the one before."""
CONNECT_SECONDS, RESPONSE_SECONDS = 10, 30
"""Longest waits for a connection, and for further bytes of a response."""
PROTOCOLS = ("s3", "gs", "gcs", "az", "abfs", "https", "http", "hf", "memory", "file")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET = re.compile(r"://[^/]*@|[?&](x-amz-|x-goog-|awsaccess|signature|sig|token|key|se)[^=&]*=", re.IGNORECASE)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class RemoteInfo:
    """A remote file.

    Attributes:
        size: In bytes.
        version: Its ETag, or what else changes with its content.
    """

    size: int
    version: str


def check_address(address: str) -> None:
    """Reject an address of a kind that is not read, or with credentials in it.

    Raises:
        UsageError: If so.
    """
    match = _ADDRESS.match(address)
    protocol = match[1].lower() if match else ""
    if protocol not in PROTOCOLS or "::" in address:
        known = ", ".join(f"{name}://" for name in PROTOCOLS[:8])
        raise UsageError(f"found the address {_public(address)}; expected one that starts with {known}")
    if _SECRET.search(address):
        raise UsageError(
            f"found credentials in the address {_public(address)}; expected none, for settings are stored with a run: "
            "give them by the environment variables or files of the store"
        )


def info(address: str) -> RemoteInfo:
    """Size and version of a remote file.

    Raises:
        OSError: If it is missing or cannot be reached.
    """
    return _described(_retried(address, lambda: _fs(address).info(_path(address))))


def listed_files(address: str) -> dict[str, RemoteInfo]:
    """The files below an address, by their path relative to it.

    Raises:
        OSError: If it cannot be reached.
    """
    root = _path(address).rstrip("/")
    found = _retried(address, lambda: _fs(address).find(root, detail=True))
    return {name[len(root) :].lstrip("/"): _described(each) for name, each in found.items() if name != root}


def matching(address: str) -> list[str]:
    """The addresses that a pattern matches.

    Raises:
        OSError: If it cannot be reached.
    """
    fs = _fs(address)
    return [fs.unstrip_protocol(name) for name in _retried(address, lambda: fs.glob(_path(address)))]


class RemoteFile:
    """A remote file, read by ranges.

    Args:
        address: Of the file.
        known: Its size and version, if they are known.

    Raises:
        OSError: If it is missing or cannot be reached.
    """

    def __init__(self, address: str, known: RemoteInfo | None = None) -> None:
        self.address = address
        self.info = known or info(address)
        self.key = f"{address}\n{self.info.version}\n{self.info.size}"

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes, fewer at the end of the file.

        Raises:
            OSError: If they cannot be read.
        """
        end = min(offset + size, self.info.size)
        if end <= offset:
            return b""
        first, last = offset // BLOCK, (end - 1) // BLOCK
        blocks = {number: cache().get(self.key, number, self._length(number)) for number in range(first, last + 1)}
        missing = [number for number, content in blocks.items() if content is None]
        for start, stop in _runs(missing):
            blocks |= self._fetched(start, stop)
        content = b"".join(block for number in sorted(blocks) if (block := blocks[number]) is not None)
        return content[offset - first * BLOCK : end - first * BLOCK]

    def copy(self, suffix: str) -> str:
        """The path of a whole local copy, in the cache.

        Args:
            suffix: Ending of its name.

        Raises:
            OSError: If it cannot be read or written.
        """
        path = cache().path(self.key, f"whole{suffix}")
        if path.is_file() and path.stat().st_size == self.info.size:
            os.utime(path)
            return str(path)
        with cache().writing(path) as descriptor:
            for start in range(0, self.info.size, _LARGEST_REQUEST):
                view = memoryview(self._range(start, min(start + _LARGEST_REQUEST, self.info.size)))
                while view:
                    view = view[os.write(descriptor, view) :]
        return str(path)

    def _length(self, number: int) -> int:
        return min(BLOCK, self.info.size - number * BLOCK)

    def _fetched(self, start: int, stop: int) -> dict[int, bytes]:
        """Blocks by one request."""
        content = self._range(start * BLOCK, min(stop * BLOCK, self.info.size))
        blocks = {
            number: content[(number - start) * BLOCK : (number - start + 1) * BLOCK] for number in range(start, stop)
        }
        for number, block in blocks.items():
            cache().put(self.key, number, block)
        return blocks

    def _range(self, start: int, end: int) -> bytes:
        def request() -> bytes:
            content = _fs(self.address).cat_file(_path(self.address), start=start, end=end)
            if len(content) == self.info.size:  # of a server that has no ranges
                content = content[start:end]
            if len(content) != end - start:
                raise ConnectionError("a short response")
            return content

        return _retried(self.address, request)


def described_error(address: str, error: Exception) -> DataError:
    """The one-line error for a store that does not give what is requested.

    Args:
        address: What was requested.
        error: Its failure; its text is not repeated.
    """
    kinds = " ".join(type(each).__name__ for each in _chain(error))
    if isinstance(error, FileNotFoundError):
        return DataError(f"{address} not found: check the bucket and the path")
    if re.search(r"Permission|Credential|Unauthorized|Forbidden|Auth|Token|GatedRepo", kinds):
        return DataError(
            f"{address} cannot be read (no access): check the credentials, which are those of the environment or of "
            "the files of the store, such as AWS_PROFILE or AWS_ACCESS_KEY_ID"
        )
    found = type(error.__cause__ or error).__name__
    return DataError(
        f"{address} cannot be read ({found} in each of {ATTEMPTS} attempts): check the network and the address"
    )


def _retried(address: str, request: Callable[[], _Result]) -> _Result:
    """The result of a request, which is repeated after a failure that may pass.

    Raises:
        OSError: After the last attempt, or at once for a file that is missing or closed to the user.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return request()
        except RunStoppedError:
            raise
        except ImportError as error:
            raise _missing_package(address, error) from error
        except Exception as failure:  # each store has exceptions of its own
            error = _behind(failure)
            if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
                raise
            if _is_final(error):
                raise PermissionError(f"{address}: no access") from error
            if attempt == ATTEMPTS:
                raise RemoteError(f"{address}: {type(error).__name__}") from error
            time.sleep(pause)
            pause *= 2
    raise AssertionError


class RemoteError(OSError):
    """A request that failed in every attempt."""


def _behind(error: Exception) -> Exception:
    """The failure behind an error: fsspec reports every failure of a web server as a file that is not found."""
    cause = error.__cause__ or error.__context__
    if isinstance(error, FileNotFoundError) and type(cause).__module__.startswith("aiohttp"):
        return error if getattr(cause, "status", None) in (404, 410) or not isinstance(cause, Exception) else cause
    return error


def _is_final(error: Exception) -> bool:
    """Whether another attempt would fail too: for want of credentials, or by a status 4xx other than a timeout."""
    if any("Credential" in type(each).__name__ for each in _chain(error)):
        return True
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__ or each.__context__
    return found


def _fs(address: str) -> Any:
    check_address(address)
    return _opened(_ADDRESS.match(address)[1].lower(), os.getpid())  # type: ignore[index]


@lru_cache(maxsize=8)
def _opened(protocol: str, process: int) -> Any:
    """The file system of a protocol; each process has its own connections."""
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True}  # `_opened` is the cache
    if protocol == "s3":
        timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": RESPONSE_SECONDS}
        options |= {"config_kwargs": {**timeouts, "retries": {"max_attempts": 1}}, "use_listings_cache": False}
    elif protocol in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(None, sock_connect=CONNECT_SECONDS, sock_read=RESPONSE_SECONDS)
        options |= {"client_kwargs": {"timeout": timeout}}
    try:
        fs = fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise _missing_package(f"{protocol}://", error) from error
    if protocol == "s3":
        fs.retries = 1  # attempts are counted here
    return fs


def _missing_package(address: str, error: ImportError) -> UsageError:
    package = f" ({error.name})" if error.name else ""
    return UsageError(f"{address} needs a package that is missing{package}: pip install 'ssl-lightning[remote]'")


def _path(address: str) -> str:
    from fsspec.core import strip_protocol

    return strip_protocol(address)


def _described(found: dict[str, Any]) -> RemoteInfo:
    names = ("ETag", "etag", "blob_id", "content_md5", "md5Hash", "LastModified", "mtime", "created", "Last-Modified")
    version = next((str(found[name]) for name in names if found.get(name)), "")
    return RemoteInfo(int(found.get("size") or 0), version)


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as half-open ranges, none longer than a request."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number and number - runs[-1][0] < _LARGEST_REQUEST // BLOCK:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs


def _public(address: str) -> str:
    """An address without what may be credentials."""
    return re.sub(r"://[^/]*@", "://", address.split("?")[0])[:100]
