"""The folder or files of a path: search in the data folder, patterns, and braces."""

import glob
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ssl_lightning.errors import DataError, UsageError

VARIABLE = "SSL_LIGHTNING_DATA"
_MOST_SHARDS, _MOST_DIGITS, _MOST_BRACES = 100_000, 18, 10
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_INSIDE = re.compile(r"(\.(?:parquet|arrow|feather|csv|tsv|jsonl|npy|npz|h5|hdf5)):(.+)\Z", re.IGNORECASE | re.DOTALL)
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def is_address(path: str) -> bool:
    """Whether a path is an address of a remote file or folder."""
    return _ADDRESS.match(path) is not None


def locate(path: str) -> list[Path]:
    """The folder or files of a path.

    A file name without a folder is a pack in the folder `SSL_LIGHTNING_DATA`, for any current folder; a file of the
    same name in the current folder is not used. A relative path with a folder is looked for in `SSL_LIGHTNING_DATA`
    first and then in the current folder. An absolute path, and one that starts with `./` or `../`, is used
    unchanged, and so are `.` and `..`.

    Args:
        path: A folder, a tar file, or several shards by a pattern (`pool-*.tar`) or braces (`pool-{000..005}.tar`). A
            path that exists is taken as it is, whatever characters it has.

    Returns:
        One folder, or files sorted by the bytes of their names.

    Raises:
        DataError: If nothing is found, or shards of the braces are missing, with their names.
        UsageError: For an empty path or an address, or if braces stand for too many files.
    """
    if not path:
        raise UsageError("found an empty path of images; expected a folder, a tar file or shards, such as ./images")
    if is_address(path):
        raise UsageError(f"found the address {path} as a path of images; expected a local one: download it first")
    data, path = Path(os.environ.get(VARIABLE, "data")), os.path.expanduser(path)
    roots = _roots(path, data)
    if literal := [root / path for root in roots if os.path.exists(root / path)]:
        return literal[:1]  # a name with braces or brackets of its own
    if len(_BRACES.findall(path)) > _MOST_BRACES:
        raise UsageError(f"found more than {_MOST_BRACES} pairs of braces in the path {path[:50]!r}...; expected fewer")
    wanted = list(islice(expand_braces(path), _MOST_SHARDS + 1))
    if len(wanted) > _MOST_SHARDS:
        raise UsageError(f"found {path!r} with braces for more than {_MOST_SHARDS:,} files; expected fewer")
    found = [_first_match(roots, pattern) for pattern in wanted]
    missing = [pattern for pattern, matches in zip(wanted, found, strict=True) if not matches]
    if missing:
        raise DataError(_not_found(missing, roots))
    return sorted((match for matches in found for match in matches), key=os.fsencode)


def _roots(path: str, data: Path) -> list[Path]:
    """The folders in which a path is looked for, in this order."""
    if Path(path).is_absolute() or f"{path}/".startswith(("./", "../")):
        return [Path()]
    return [data, Path()] if "/" in path else [data]


def _not_found(missing: list[str], roots: list[Path]) -> str:
    """The error message for a missing path: where it was looked for, and what to do."""
    paths = missing[0] + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
    if roots == [Path()]:
        below = "" if Path(missing[0]).is_absolute() else f" in {Path.cwd()}"
        return f"{paths} not found{below}: fix the path"
    suggestion = f"set {VARIABLE} to the folder that holds it"
    if _first_match([Path()], missing[0]):
        suggestion += f", or give ./{missing[0]} for the one in the current folder"
    where = " or ".join(dict.fromkeys("the current folder" if root == Path() else str(root) for root in roots))
    return f"{paths} not found in {where}: {suggestion}"


def _first_match(roots: list[Path], pattern: str) -> list[Path]:
    for root in roots:
        there = root / pattern
        if there.exists():
            return [there]
        matches = [Path(match) for match in glob.glob(str(there)) if Path(match).is_file()]
        if matches:
            return matches
    return []


def expand_braces(pattern: str) -> Iterator[str]:
    """The paths that braces stand for, such as `{000..005}` or `{a,b}`.

    Raises:
        UsageError: For numbers of too many digits.
    """
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    width = len(first or "")
    if max(width, len(last or "")) > _MOST_DIGITS:
        raise UsageError(f"found {match[0][:50]}... in a path; expected numbers of at most {_MOST_DIGITS} digits")
    choices = words.split(",") if words else (f"{n:0{width}d}" for n in range(int(first), int(last) + 1))
    for choice in choices:
        yield from expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def divided(path: str) -> tuple[str, str]:
    """A path and what it names inside of a file, such as `images.h5` and `/train` of `images.h5:/train`.

    Args:
        path: A column of a table, a dataset of an HDF5 file or an array follows the ending and a colon. A path that
            exists is taken as it is.
    """
    match = _INSIDE.search(path)
    if match is None or os.path.exists(path):
        return path, ""
    return path[: match.end(1)], match[2]
