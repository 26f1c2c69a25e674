"""Index of the members of a tar file. Members are never extracted; their bytes are read by offset."""

import bz2
import gzip
import lzma
import zlib
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8

from ssl_lightning.data.sources.tar_headers import BadTarError, Header, Headers
from ssl_lightning.errors import DataError
from ssl_lightning.progress import progress

Read = Callable[[int, int], bytes]
"""Returns bytes of an archive by offset and size, fewer at its end."""

_OPENERS = {b"\xfd7zXZ\x00": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_LARGEST_UNPACKED = 8 << 30
_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class TarIndex:
    """The files of a tar file in their order.

    Attributes:
        names: Names of the members.
        offsets: Position of the content of each, in bytes.
        sizes: Length of the content of each, in bytes.
        unpacked: The decompressed archive, to which the offsets refer, if the file is compressed; else None.
    """

    names: list[str]
    offsets: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]
    unpacked: UInt8[np.ndarray, "bytes"] | None = None


def index_tar(path: Path) -> TarIndex:
    """Read the headers of a tar file. A compressed file (xz, gzip, bzip2) is decompressed into memory once.

    Concatenated archives count as one.

    Raises:
        DataError: If the path is not a readable file, the archive is truncated or broken, or a member is a link, a
            device or sparse, has an absolute name or one with "..", or occurs twice.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file: give a tar file or a folder")  # a pipe would block
    try:
        opener = _opener(path)
        if opener is None:
            with path.open("rb", buffering=0) as file:
                return index_members(str(path), _reads(file), path.stat().st_size)
        content = _unpack(path, opener)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check the file and its disk") from error
    unpacked = np.frombuffer(content, dtype=np.uint8)  # without a copy
    unpacked.flags.writeable = False
    index = index_members(str(path), lambda at, size: bytes(content[at : at + size]), len(content))
    return replace(index, unpacked=unpacked)


def _reads(file: BinaryIO) -> Read:
    def read(at: int, size: int) -> bytes:
        file.seek(at)
        return file.read(size)

    return read


def _opener(path: Path):  # noqa: ANN202  # the openers of three modules have no common type
    with path.open("rb") as stream:
        start = stream.read(6)
    return next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)


def _unpack(path: Path, opener: Callable[..., AbstractContextManager[BinaryIO]]) -> bytearray:
    content = bytearray()
    try:
        with opener(path, "rb") as stream, progress(None, f"unpacking {path.name}", "B", is_size=True) as bar:
            while chunk := stream.read(_CHUNK):
                if len(content) + len(chunk) > _LARGEST_UNPACKED:
                    raise _broken(path, "unpacks to more than 8 GiB", "unpack it into a folder and give that")
                content += chunk
                bar.update(len(chunk))
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise _broken(path, f"cannot be unpacked ({error})") from error
    return content


def index_members(path: str, read: Read, length: int) -> TarIndex:
    """Read the headers of an archive that is not compressed.

    Args:
        path: For messages.
        read: Returns bytes of it.
        length: Number of all its bytes.

    Raises:
        DataError: See `index_tar`.
    """
    names: list[str] = []
    offsets, sizes = array("q"), array("q")
    try:
        for header in Headers(read, length):
            if header.kind != "folder":
                _reject_unsafe(path, header)
                names.append(header.name.removeprefix("./"))
                offsets.append(header.offset)
                sizes.append(header.size)
    except BadTarError as error:
        raise _broken(path, f"{error} after {len(names)} members") from error
    _reject_duplicates(path, names)
    return TarIndex(names, np.array(offsets, dtype=np.int64), np.array(sizes, dtype=np.int64))


def _reject_unsafe(path: str, header: Header) -> None:
    if header.kind != "file":
        raise _broken(path, f"holds a {header.kind}, {header.name!r}", "pack plain files only")
    if header.name.startswith("/") or ".." in PurePosixPath(header.name).parts:
        raise _broken(path, f"holds a name that leaves its folder, {header.name!r}", "pack relative names only")


def _reject_duplicates(path: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise _broken(path, f"holds the name {twice!r} twice", "pack each name once")


def _broken(path: Path | str, found: str, fix: str = "make or copy it again") -> DataError:
    return DataError(f"{path} {found}: {fix}")
