"""Splits that are files: the folders of Hugging Face datasets, such as `data/train-00000-of-00002.parquet`."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from ssl_lightning.data.sources.tar import is_tar
from ssl_lightning.errors import DataError

TABLES = (".parquet", ".arrow")
"""Endings of files that are shards of a table."""
_KNOWN = ("train", "test", "val", "valid", "validation", "dev", "unlabeled", "extra")
_NUMBERED = re.compile(r"(?!data-)(\w+)-\d{5}-of-\d{5}\Z")
_DEPTH = 2
_MOST_OTHERS = 100


def split_files(folder: str, names: Iterable[str] | None = None) -> dict[str, list[str]]:
    """The files of each split in a folder, sorted by their bytes; empty if it holds no such files.

    The split is in the name of a file, or is the name of its folder, such as `data/train-00000-of-00002.parquet`,
    `train/data-00000-of-00001.arrow` or `mnist/train/0000.parquet`.

    Args:
        folder: The folder.
        names: Paths of all files within a remote folder.

    Raises:
        DataError: If several folders hold files of one split, or the folder cannot be read.
    """
    found: dict[str, list[str]] = {}
    folders: dict[str, set[str]] = {}
    try:
        for name in _walk(Path(folder), "", _DEPTH) if names is None else filter(_is_shallow_table, names):
            split, above = _split_of(PurePosixPath(name))
            if split:
                found.setdefault(split, []).append(os.path.join(folder, name))
                folders.setdefault(split, set()).add(above)
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}): check the folder and its rights") from error
    for split, several in folders.items():
        if len(several) > 1:
            names = ", ".join(sorted(several))
            raise DataError(f"{folder} has the split {split!r} in several folders, {names}: give one of them")
    return {split: sorted(found[split], key=os.fsencode) for split in sorted(found)}


def shards_in(folder: str, names: Iterable[str]) -> list[str]:
    """The files of a folder without images that hold images: its tar files, else its tables; sorted by their bytes.

    Args:
        folder: The folder.
        names: Names of the files that are no images.
    """
    names = sorted(names, key=os.fsencode)
    for kind in (is_tar, _is_table):
        if shards := [os.path.join(folder, name) for name in names if kind(name)]:
            return shards
    return []


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    others = 0
    for entry in os.scandir(folder):
        if _is_table(entry.name) and entry.is_file():
            yield prefix + entry.name
        elif depth and not entry.name.startswith(".") and entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", depth - 1)
        else:
            others += 1
            if others > _MOST_OTHERS:  # a folder of images, which is listed elsewhere
                return


def _is_shallow_table(name: str) -> bool:
    return _is_table(name.rsplit("/", 1)[-1]) and name.count("/") <= _DEPTH


def _is_table(name: str) -> bool:
    return name.lower().endswith(TABLES) and not name.startswith(".")


def _split_of(path: PurePosixPath) -> tuple[str, str]:
    """The split of a file, and the folder that has it."""
    known = [word for word in re.split(r"[-.]", path.stem) if word in _KNOWN]
    numbered = _NUMBERED.match(path.stem)
    if len(known) == 1 or numbered:
        return (known[0] if len(known) == 1 else numbered[1] if numbered else ""), str(path.parent)
    return path.parent.name, str(path.parent.parent)
