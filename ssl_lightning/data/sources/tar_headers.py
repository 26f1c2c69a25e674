"""Headers of a tar archive with their offsets: POSIX (ustar, pax), GNU long names, and V7.

Python's tarfile takes a broken header for the end, recurses once per extended header, and accepts negative or invalid
sizes and sparse maps. Headers are therefore parsed here, and any anomaly is an error.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
_MOST_EXTENDED = 16
"""Largest number of extended headers of one member."""
_LARGEST_EXTENDED = 1 << 20
_LONGEST_NAME = 4096
_ZEROS = bytes(1 << 20)
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"5": "folder", b"1": "link", b"2": "link", b"S": "sparse file"}
_KINDS |= dict.fromkeys((b"3", b"4", b"6"), "device")


class BadTarError(ValueError):
    """A fault of an archive, phrased as the end of a sentence about it."""


class Header(NamedTuple):
    """One member.

    Attributes:
        name: Its name without a trailing slash.
        kind: "file", "folder", "link", "device", "sparse file" or "member of type ...".
        offset: Position of its content.
        size: Length of its content.
    """

    name: str
    kind: str
    offset: int
    size: int


class Headers:
    """Iterates over all members of an archive, and of archives that are concatenated to it.

    Args:
        read: Returns bytes by offset and size, fewer at the end.
        length: Number of all bytes.
    """

    def __init__(self, read: Callable[[int, int], bytes], length: int) -> None:
        self.read, self.length = read, length

    def __iter__(self) -> Iterator[Header]:
        at = 0
        while at is not None and (at < self.length or at == 0):
            block = self._block(at)
            if block.count(0) == BLOCK:
                at = self._next_archive(at)
            else:
                header, at = self._member(block, at)
                yield header
                if at >= self.length:
                    raise BadTarError("has no end mark")

    def _block(self, at: int) -> bytes:
        block = self.read(at, BLOCK)
        if len(block) < BLOCK:
            raise BadTarError("ends within a header" if block else "has no end mark")
        return block

    def _next_archive(self, at: int) -> int | None:
        """Position after the zero blocks at the end of an archive; None at the end of the file."""
        while zeros := self.read(at, len(_ZEROS)):
            if zeros != _ZEROS[: len(zeros)]:
                at += (len(zeros) - len(zeros.lstrip(b"\0"))) // BLOCK * BLOCK
                if not _is_header(self.read(at, BLOCK)):
                    raise BadTarError(f"holds {self.length - at} bytes behind its end that are no archive")
                return at
            at += len(zeros)
        return None

    def _member(self, block: bytes, at: int) -> tuple[Header, int]:
        """The member with this block as its first header, and the position of the next header."""
        extended: dict[str, str] = {}
        for _ in range(_MOST_EXTENDED):
            if not _is_header(block):
                raise BadTarError("has a broken header")
            kind, size = block[156:157], _number(block[124:136])
            at += BLOCK
            if kind not in b"xXgLK":
                return self._described(block, extended, at, size)
            if size > _LARGEST_EXTENDED:
                raise BadTarError(f"has an extended header of {size} bytes, the limit is {_LARGEST_EXTENDED},")
            content = self.read(at, size)
            if len(content) < size:
                raise BadTarError("ends within an extended header")
            extended |= _extended(kind, content)
            at += -(-size // BLOCK) * BLOCK
            block = self._block(at)
        raise BadTarError(f"has more than {_MOST_EXTENDED} extended headers in a row")

    def _described(self, block: bytes, extended: dict[str, str], at: int, size: int) -> tuple[Header, int]:
        letter = block[156:157]
        kind = _KINDS.get(letter, f"member of type {letter!r}")
        if any(key.startswith("GNU.sparse.") for key in extended):
            kind = "sparse file"
        name = extended.get("path", _name(block))
        if letter == b"\0" and name.endswith("/"):
            kind = "folder"  # as in V7
        if kind == "file" and "size" in extended:
            size = _decimal(extended["size"])
        if len(name) > _LONGEST_NAME:
            raise BadTarError(f"has a name of {len(name)} letters, the limit is {_LONGEST_NAME},")
        header = Header(name.rstrip("/"), kind, at, size)
        if kind != "file":
            return header, at
        if at + size > self.length:
            raise BadTarError(f"ends in the middle of a member ({header.name!r} of {size} bytes)")
        return header, at + -(-size // BLOCK) * BLOCK


def _is_header(block: bytes) -> bool:
    """Whether the checksum is valid, computed with unsigned or, as in some archives, signed bytes."""
    if len(block) < BLOCK:
        return False
    try:
        expected = _number(block[148:156])
    except BadTarError:
        return False
    unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    negative = sum(byte > 127 for byte in block[:148] + block[156:])
    return expected in (unsigned, unsigned - 256 * negative)


def _number(field: bytes) -> int:
    """Octal digits, or the binary form of large numbers."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ") or b"0"
    if not all(48 <= digit < 56 for digit in digits):
        raise BadTarError(f"has a header with the size {field!r}")
    return int(digits, 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadTarError(f"has a header with the size {text[:40]!r}")
    return int(text)


def _name(block: bytes) -> str:
    name, prefix = _text(block[:100]), _text(block[345:500])
    # POSIX archives have a prefix in this field, GNU archives have times
    return f"{prefix}/{name}" if prefix and block[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _extended(kind: bytes, content: bytes) -> dict[str, str]:
    if kind == b"L":
        return {"path": _text(content)}
    if kind == b"K":
        return {}  # the target of a link
    found = _records(content)
    if kind == b"g":
        if odd := [key for key in found if key in ("path", "size") or key.startswith("GNU.sparse.")]:
            raise BadTarError(f"has a header for all members with {odd[0]}")
        return {}
    return found


def _records(content: bytes) -> dict[str, str]:
    """Parse lines of `<length> <key>=<value>`, with the length of the line."""
    records, at = {}, 0
    while at < len(content) and content[at]:
        digits, space, _ = content[at : at + 20].partition(b" ")
        end = at + int(digits) if space and digits.isdigit() else 0
        line = content[at + len(digits) + 1 : end - 1]
        key, equals, value = line.partition(b"=")
        if not equals or end > len(content) or content[end - 1 : end] != b"\n":
            raise BadTarError("has a broken extended header")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at = end
    return records
