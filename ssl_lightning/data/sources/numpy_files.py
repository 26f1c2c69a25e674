"""Arrays of NumPy files (`.npy`, `.npz`) by name, memory-mapped where they are not compressed."""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.data.sources.array_names import ArraysOfFile
from ssl_lightning.errors import DataError

LARGEST_UNPACKED = 8 << 30
"""Bytes of compressed arrays that are held in memory."""
_LOCAL = struct.Struct("<4s22xHH")
"""Header of a zip member: signature, and lengths of name and extra field."""


class NumpyArrays(ArraysOfFile):
    """The arrays of a file; that of a `.npy` file has an empty name. An array is opened when it is first used.

    Raises:
        DataError: If the file is damaged, or an array holds Python objects or unpacks to more than 8 GiB.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._arrays: dict[str, np.ndarray] = {}
        try:
            if Path(path).suffix.lower() == ".npy":
                self._members = {"": None}
                return
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise self._broken(error) from error
        self._members = {member.filename.removesuffix(".npy"): member for member in members}
        packed = sum(member.file_size for member in members if member.compress_type != zipfile.ZIP_STORED)
        if packed > LARGEST_UNPACKED:
            raise DataError(f"{path} unpacks to {packed:,} bytes; expected at most 8 GiB: save it by numpy.savez")

    def array(self, name: str) -> np.ndarray:
        """Map or unpack an array."""
        if name not in self._arrays:
            member = self._members[name]
            try:
                self._arrays[name] = self._mapped() if member is None else self._of(member)
            except (OSError, ValueError, EOFError, struct.error, MemoryError, zlib.error, RuntimeError) as error:
                raise self._broken(error) from error
            except (zipfile.BadZipFile, SyntaxError, TypeError, KeyError, RecursionError) as error:
                raise self._broken(error) from error
        return self._arrays[name]

    @property
    def names(self) -> list[str]:
        """The names of the arrays."""
        return list(self._members)

    def _mapped(self, start: int = 0) -> np.ndarray:
        with open(self.path, "rb") as file:
            file.seek(start)
            shape, is_fortran, dtype = _header(file)
            at = file.tell()
        order = "F" if is_fortran else "C"
        if not np.prod(shape, dtype=object):
            return np.zeros(shape, dtype)
        return np.memmap(self.path, dtype, "r", at, shape, order)

    def _of(self, member: zipfile.ZipInfo) -> np.ndarray:
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            with open(self.path, "rb") as file:
                file.seek(member.header_offset)
                signature, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
                if signature != b"PK\3\4":
                    raise zipfile.BadZipFile("a member without its header")
            return self._mapped(member.header_offset + _LOCAL.size + name + extra)
        with zipfile.ZipFile(self.path) as archive, archive.open(member) as stream:
            shape, is_fortran, dtype = _header(stream)
            expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if expected > member.file_size:
                raise ValueError(f"array {member.filename} of {expected} bytes in a member of {member.file_size}")
            content = stream.read(expected)
        if len(content) < expected:
            raise EOFError(f"array {member.filename} ends early")
        flat = np.frombuffer(content, dtype)
        return flat.reshape(shape, order="F" if is_fortran else "C")

    def _broken(self, error: BaseException) -> DataError:
        found = (str(error) or type(error).__name__).splitlines()[0][:200]
        return DataError(f"{self.path} cannot be read as NumPy arrays ({found}): make or copy it again")


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("Python objects, which are never loaded")
    if any(side < 0 for side in shape):
        raise ValueError(f"the shape {shape}")
    return shape, is_fortran, dtype
