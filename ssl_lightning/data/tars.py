"""Where each member of a tar file lies. Members are never extracted: names are data, and bytes are read by offset."""

import bz2
import gzip
import io
import lzma
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int64, UInt8
from tqdm import tqdm

_OPENERS = {b"\xfd7zXZ\x00": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_LARGEST_UNPACKED = 8 << 30
_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class TarIndex:
    """The files of one tar, in the order of the archive.

    Attributes:
        names: Member names.
        offsets: Where the content of each begins, in bytes.
        sizes: Their lengths in bytes.
        unpacked: The whole archive, where it was compressed and offsets count from the start of this; else None.
    """

    names: list[str]
    offsets: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]
    unpacked: UInt8[np.ndarray, "bytes"] | None = None


def index_tar(path: Path) -> TarIndex:
    """Read the headers of a tar file; one that is compressed (xz, gzip, bzip2) is unpacked into memory once.

    Raises:
        ValueError: A truncated or broken archive; a member that is a link, a device or sparse, whose name is absolute
            or climbs with "..", or occurs twice.
    """
    opener = _opener(path)
    if opener is None:
        with path.open("rb") as stream:
            return TarIndex(*_members(path, stream, path.stat().st_size))
    content = _unpack(path, opener)
    unpacked = np.frombuffer(content, dtype=np.uint8)
    return TarIndex(*_members(path, io.BytesIO(content), len(content)), unpacked)


def _opener(path: Path):  # noqa: ANN202  # the openers of three modules have no common type
    with path.open("rb") as stream:
        start = stream.read(6)
    return next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)


def _unpack(path: Path, opener) -> bytes:  # noqa: ANN001  # as above
    content = bytearray()
    try:
        with opener(path, "rb") as stream, _progress(path) as bar:
            while chunk := stream.read(_CHUNK):
                content += chunk
                bar.update(len(chunk))
                if len(content) > _LARGEST_UNPACKED:
                    raise _broken(path, "unpacks to more than 8 GiB", "unpack it into a folder and give that")
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise _broken(path, f"cannot be unpacked ({error})") from error
    return bytes(content)


def _progress(path: Path) -> tqdm:
    return tqdm(desc=f"unpacking {path.name}", unit="B", unit_scale=True, delay=2, leave=False, disable=None)


def _members(path: Path, stream: io.BufferedIOBase, length: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    names: list[str] = []
    places: list[tuple[int, int]] = []
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if not member.isdir():
                    _refuse_unsafe(path, member)
                    names.append(member.name.removeprefix("./"))
                    places.append((member.offset_data, member.size))
            end = tar.offset
    except tarfile.TarError as error:
        raise _broken(path, f"is not a whole tar file ({error})") from error
    _refuse_truncated(path, stream, length, places, end)
    _refuse_duplicates(path, names)
    table = np.array(places, dtype=np.int64).reshape(-1, 2)
    return names, table[:, 0].copy(), table[:, 1].copy()


def _refuse_unsafe(path: Path, member: tarfile.TarInfo) -> None:
    if not member.isreg() or member.issparse():
        kind = "a sparse file" if member.isreg() else "a link" if member.islnk() or member.issym() else "a device"
        raise _broken(path, f"holds {kind}, {member.name!r}", "pack plain files only")
    if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        raise _broken(path, f"holds a name that leaves its folder, {member.name!r}", "pack relative names only")


def _refuse_truncated(
    path: Path, stream: io.BufferedIOBase, length: int, places: list[tuple[int, int]], end: int
) -> None:
    if places and max(offset + size for offset, size in places) > length:
        raise _broken(path, "ends in the middle of a member")
    # tarfile takes a broken header for the end; the true end is a block of zeros
    stream.seek(end)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _broken(path, f"has no end mark after {len(places)} members")


def _refuse_duplicates(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise _broken(path, f"holds the name {twice!r} twice", "pack each name once")


def _broken(path: Path, found: str, remedy: str = "make or copy it again") -> ValueError:
    return ValueError(f"{path} {found}: {remedy}")
