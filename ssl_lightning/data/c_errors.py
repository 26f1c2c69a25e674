"""Suppression of lines that C libraries print to the standard error stream during decoding.

libjpeg (in torchvision) and libtiff (in Pillow) print a line about damage. Redirecting file descriptor 2 would also
capture Python's output, crash reports and the output of child processes. Therefore only the `stderr` of the C library
is replaced by a file in memory; any other line in it is printed afterwards.
"""

import ctypes
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_KNOWN = re.compile(
    rb"Corrupt JPEG data: |Premature end of JPEG file|Inconsistent progression sequence|Invalid SOS parameters"
    rb"|Unknown Adobe color transform|Warning: unknown JFIF revision|Application transferred too"
    rb"|(tempfile\.tif|(TIFF|JPEG|LZW|ZIP|Fax|PackBits|LERC|LZMA|ZSTD|WebP|OJPEG|Fax3|_TIFF|Predictor)\w*): "
    rb"|[a-z_]+\.c: |Apparently should be |MissingRequired|CheckDirCount|setByteArray|allChoppedUpArray"
)
_UNBUFFERED = 2  # _IONBF of the C libraries that have memfd_create


class _Stream:
    """The `stderr` of the C library, and a file in memory that can replace it."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self.pointer = ctypes.c_void_p.in_dll(library, "stderr")
        self.real = self.pointer.value
        self.descriptor = os.memfd_create("errors of decoders", os.MFD_CLOEXEC)
        library.fdopen.restype = ctypes.c_void_p
        self.file = library.fdopen(self.descriptor, b"a")
        library.setvbuf(ctypes.c_void_p(self.file), None, _UNBUFFERED, ctypes.c_size_t(0))
        self.users, self.lock = 0, threading.Lock()

    def enter(self) -> None:
        with self.lock:
            self.users += 1
            self.pointer.value = self.file

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.pointer.value = self.real
            length = os.fstat(self.descriptor).st_size
            if length:
                lines = os.pread(self.descriptor, length, 0).splitlines(keepends=True)
                os.ftruncate(self.descriptor, 0)
                if others := b"".join(line for line in lines if not _KNOWN.match(line)):
                    os.write(2, others)


_stream: _Stream | None = None


def _make() -> None:
    """One stream per process: a forked process would share its parent's file, or keep the replacement."""
    global _stream
    if _stream is not None:
        _stream.pointer.value = _stream.real
    try:
        _stream = _Stream()
    except (AttributeError, ValueError, OSError):  # another C library: the lines are printed
        _stream = None


_make()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """A context that suppresses the lines of libjpeg and libtiff; it can be entered by any number of threads."""
    stream = _stream
    if stream is None:
        yield
        return
    stream.enter()
    try:
        yield
    finally:
        stream.leave()
