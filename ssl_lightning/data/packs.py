"""Image datasets from a path: a folder, a tar file, or several shards."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from ssl_lightning.data.class_names import normalized
from ssl_lightning.data.dataset import ImageDataset, PackedNames, SelectedImages
from ssl_lightning.data.downloaded import is_downloaded, open_downloaded
from ssl_lightning.data.fingerprint import digest
from ssl_lightning.data.limits import DEFAULT_LIMITS, Limits
from ssl_lightning.data.stored import ByteTable, StoredImages
from ssl_lightning.data.tars import index_tar
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.types import UNLABELLED

VARIABLE = "SSL_LIGHTNING_DATA"
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_TARS = re.compile(r"\.(tar(\.(xz|gz|bz2))?|tgz|txz|tbz2?)\Z", re.IGNORECASE)
_in_use: WeakValueDictionary[tuple[str, str, str, Limits], ImageDataset] = WeakValueDictionary()
_MOST_SHARDS, _MOST_DIGITS, _MOST_BRACES = 100_000, 18, 10
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def locate(path: str) -> list[Path]:
    """The folder or files of a path.

    A file name without a folder is a pack in the folder `SSL_LIGHTNING_DATA`, for any current folder; a file of the
    same name in the current folder is not used. A relative path with a folder is looked for in `SSL_LIGHTNING_DATA`
    first and then in the current folder. An absolute path, and one that starts with `./` or `../`, is used unchanged.

    Args:
        path: A folder, a tar file, or several shards by a pattern (`pool-*.tar`) or braces (`pool-{000..005}.tar`).

    Returns:
        One folder, or files sorted by the bytes of their names.

    Raises:
        DataError: If nothing is found, or shards of the braces are missing, with their names.
        UsageError: If braces stand for too many files.
    """
    data, path = Path(os.environ.get(VARIABLE, "data")), os.path.expanduser(path)
    roots = _roots(path, data)
    if len(_BRACES.findall(path)) > _MOST_BRACES:
        raise UsageError(f"found more than {_MOST_BRACES} pairs of braces in the path {path[:50]!r}...; expected fewer")
    wanted = list(islice(_expand_braces(path), _MOST_SHARDS + 1))
    if len(wanted) > _MOST_SHARDS:
        raise UsageError(f"found {path!r} with braces for more than {_MOST_SHARDS:,} files; expected fewer")
    found = [_first_match(roots, pattern) for pattern in wanted]
    missing = [pattern for pattern, matches in zip(wanted, found, strict=True) if not matches]
    if missing:
        raise DataError(_not_found(missing, roots))
    return sorted((match for matches in found for match in matches), key=os.fsencode)


def open_unlabelled(path: str, limits: Limits = DEFAULT_LIMITS) -> ImageDataset:
    """All images of a folder (nested or flat), a tar file or several shards, without labels.

    Rows are in the order of the shards and, within each, of the bytes of names. If every file name is a distinct
    number, as in WebDataset shards, the number is the sample id; else the row is.

    Raises:
        DataError: If nothing is found, there is no image, or a tar file is broken or unsafe.
    """
    return _pack(locate(path), limits).dataset


def open_labelled(path: str, split: str | None, limits: Limits = DEFAULT_LIMITS) -> ImageDataset:
    """The images of one split, `split/class/file` in a folder or tar file; without a split, `class/file`.

    The folders `cifar-10-batches-py`, `cifar-100-python` and `stl10_binary` of torchvision's downloads are read too.

    Raises:
        DataError: If nothing is found, there is no such split, images are outside a class folder, or a tar file is
            broken or unsafe.
    """
    if is_downloaded(path):
        return open_downloaded(path, split or "train", locate)
    files = locate(path)
    above = _folder_above(files, split)
    if files[0].is_dir():
        pack, prefix = _folder_pack(files[0] / above / (split or ""), limits), ""
    else:
        pack, prefix = _tar_pack(files, limits), f"{above}{split}/" if split else ""
    rows = [row for row, name in enumerate(pack.names) if name.startswith(prefix)]
    if not rows:
        there = ", ".join(splits(path)) or "files"
        raise DataError(
            f"{path} has no split {split!r}, only {there}: give one of these, or --data.split null if these are classes"
        )
    classes, labels = _by_class(path, [pack.names[row].removeprefix(prefix) for row in rows])
    return SelectedImages(pack.dataset, torch.tensor(rows), labels, classes)


def splits(path: str, beside: str | None = None) -> list[str]:
    """The top-level folders of a folder or tar file, sorted by their bytes.

    Args:
        path: See `locate`.
        beside: A split. If it lies in the only top-level folder, as in a tar file of one folder, the result is the
            folders of that one.

    Raises:
        DataError: See `open_unlabelled`.
    """
    if is_downloaded(path):
        return ["train", "test"]
    files = locate(path)
    return _folders(files, _folder_above(files, beside))


def _folder_above(files: list[Path], split: str | None) -> str:
    """The only top-level folder with a slash if the split lies in it and not beside it, else nothing."""
    if split is None:
        return ""
    tops = _folders(files, "")
    only = f"{tops[0]}/" if len(tops) == 1 and split not in tops else ""
    return only if only and split in _folders(files, only) else ""


def _folders(files: list[Path], above: str) -> list[str]:
    """The folders directly in a folder of the source."""
    if files[0].is_dir():
        folder = files[0] / above
        try:
            return _sorted({entry.name for entry in folder.iterdir() if entry.is_dir()})
        except OSError as error:
            raise DataError(f"{folder} cannot be read ({error.strerror}): check the folder and its rights") from error
    names = (name.removeprefix(above) for name in _tar_names(files) if name.startswith(above))
    return _sorted({name.split("/", 1)[0] for name in names if "/" in name})


@dataclass(frozen=True, eq=False)
class _Pack:
    names: PackedNames
    dataset: ImageDataset


def _pack(files: list[Path], limits: Limits) -> _Pack:
    pack = _folder_pack(files[0], limits) if files[0].is_dir() else _tar_pack(files, limits)
    if len(pack.names) == 0:
        raise DataError(f"{files[0]} holds no image ({' '.join(_ENDINGS)}): give a folder or tar file that does")
    return pack


def _folder_pack(root: Path, limits: Limits) -> _Pack:
    """A folder is listed each time, since it can change; its images are decoded once while a run uses them."""
    table, times = _folder_table(root)
    key = (str(root), table.fingerprint, times, limits)
    dataset = _in_use.get(key)
    if dataset is None:
        dataset = _in_use[key] = _dataset(table, limits)
    return _Pack(table.names, dataset)


def _tar_pack(files: list[Path], limits: Limits) -> _Pack:
    return _decode_shards_once(tuple(files), _times(files), limits)


def _tar_names(files: list[Path]) -> PackedNames:
    return _read_shards_once(tuple(files), _times(files)).names


def _times(files: list[Path]) -> tuple[tuple[int, int], ...]:
    return tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@lru_cache(maxsize=3)
def _decode_shards_once(files: tuple[Path, ...], times: tuple[tuple[int, int], ...], limits: Limits) -> _Pack:
    """Training images and probe sets are often splits of one tar file, which is decoded once for all of them."""
    table = _read_shards_once(files, times)
    return _Pack(table.names, _dataset(table, limits))


@lru_cache(maxsize=3)
def _read_shards_once(files: tuple[Path, ...], times: tuple[tuple[int, int], ...]) -> ByteTable:
    tables = [_tar_table(file) for file in files]
    return tables[0] if len(tables) == 1 else _joined(tables)


def _dataset(table: ByteTable, limits: Limits) -> ImageDataset:
    labels = torch.full((len(table),), UNLABELLED)
    return StoredImages(table, labels, [], _sample_ids(table.names), limits).in_memory()


def _tar_table(path: Path) -> ByteTable:
    if not _TARS.search(path.name):
        raise DataError(
            f"{path} is neither a folder nor a tar file (.tar, .tar.xz, .tar.gz, .tar.bz2): give one of these"
        )
    index = index_tar(path)
    order = _image_order(index.names)
    names = PackedNames([index.names[row] for row in order])
    zeros = np.zeros(len(order), dtype=np.int32)
    return ByteTable([str(path)], zeros, names, index.offsets[order], index.sizes[order], index.unpacked)


def _folder_table(root: Path) -> tuple[ByteTable, str]:
    """The files of a folder, and a digest of their modification times."""
    try:
        files = list(_walk(root, "", ())) if root.is_dir() else []
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise DataError(f"{root} cannot be read ({reason}): check the folder and its rights") from error
    order = _image_order([name for name, *_ in files])
    names = PackedNames([files[row][0] for row in order])
    sizes = np.array([files[row][1] for row in order], dtype=np.int64)
    times = digest(np.array([files[row][2] for row in order], dtype=np.int64).tobytes())
    return ByteTable([str(root)], np.zeros(len(order), dtype=np.int32), names, np.full(len(order), -1), sizes), times


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, int, int]]:
    """Names, sizes and times of all regular files; links are followed, except to a folder that contains them."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", (*above, here))
            elif entry.is_file():
                status = entry.stat()
                yield prefix + entry.name, status.st_size, status.st_mtime_ns


def _image_order(names: list[str]) -> Int64[np.ndarray, "N"]:
    rows = [row for row, name in enumerate(names) if name.lower().endswith(_ENDINGS)]
    return np.array(sorted(rows, key=lambda row: os.fsencode(names[row])), dtype=np.int64)


def _joined(tables: list[ByteTable]) -> ByteTable:
    if any(table.unpacked is not None for table in tables):
        raise DataError(f"{tables[0].containers[0]} and the others are compressed: unpack shards to plain tar files")
    return ByteTable(
        [table.containers[0] for table in tables],
        np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables]),
        PackedNames([name for table in tables for name in table.names]),
        np.concatenate([table.offsets for table in tables]),
        np.concatenate([table.sizes for table in tables]),
    )


def _sample_ids(names: PackedNames) -> Int[Tensor, "N"]:
    stems = [name.rsplit("/", 1)[-1].rsplit(".", 1)[0] for name in names]
    if all(stem.isascii() and stem.isdigit() and len(stem) < 19 for stem in stems):
        numbers = torch.tensor([int(stem) for stem in stems], dtype=torch.int64)
        if len(numbers.unique()) == len(numbers):
            return numbers
    return torch.arange(len(names))


def _by_class(path: str, names: list[str]) -> tuple[list[str], Int[Tensor, "N"]]:
    folders = [name.split("/", 1)[0] if "/" in name else None for name in names]
    loose = next((name for name, folder in zip(names, folders, strict=True) if folder is None), None)
    if loose is not None:
        raise DataError(f"{path} holds {loose!r} outside a class folder: give split/class/file, or use UncuratedImages")
    named = [normalized(str(folder)) for folder in folders]
    classes = _sorted(set(named))
    number = {name: label for label, name in enumerate(classes)}
    return classes, torch.tensor([number[name] for name in named], dtype=torch.int64)


def _sorted(names: set[str]) -> list[str]:
    return sorted(names, key=os.fsencode)


def _roots(path: str, data: Path) -> list[Path]:
    """The folders in which a path is looked for, in this order."""
    if Path(path).is_absolute() or path.startswith(("./", "../")):
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


def _expand_braces(pattern: str) -> Iterator[str]:
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
        yield from _expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])
