"""Image datasets from a path: a folder, a tar file, a table, list or array, or several of these files."""

import logging
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.data.class_names import normalized
from ssl_lightning.data.dataset import ImageDataset, PackedNames, SelectedImages
from ssl_lightning.data.downloaded import is_downloaded, open_downloaded
from ssl_lightning.data.options import DEFAULT_OPTIONS, SourceOptions
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.labels import ANY_LABEL
from ssl_lightning.data.sources.lists import labels_in_folder
from ssl_lightning.data.sources.opening import (
    files_table,
    folders_in,
    is_folder,
    listed_folder,
    shards_of_split,
    sources_at,
    splits_at,
    times_of,
)
from ssl_lightning.data.sources.paths import VARIABLE, locate
from ssl_lightning.data.sources.selection import ENDINGS, NO_IMAGE, is_system_name
from ssl_lightning.data.sources.sidecars import is_sidecar, labels_of_sidecars
from ssl_lightning.data.sources.splits import shards_in
from ssl_lightning.data.sources.tar import is_tar
from ssl_lightning.data.stored import StoredImages
from ssl_lightning.errors import DataError
from ssl_lightning.processes import rank
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)
__all__ = ["locate", "open_labelled", "open_unlabelled", "splits"]

_in_use: WeakValueDictionary[tuple[str, str, str, SourceOptions], ImageDataset] = WeakValueDictionary()


def open_unlabelled(path: str, options: SourceOptions = DEFAULT_OPTIONS) -> ImageDataset:
    """All images of a folder (nested or flat), a tar file, several shards or a manifest, without labels.

    Rows are in the order of the shards and, within each, of the bytes of names. If every file name is a distinct
    number, as in WebDataset shards, the number is the sample id; else the row is.

    Raises:
        DataError: If nothing is found, there is no image, or a tar file is broken or unsafe.
    """
    manifest = _manifest_at(path)
    if manifest is not None:
        from ssl_lightning.data.manifest.images import ManifestImages  # it imports pyarrow

        return ManifestImages(manifest, options)
    return _pack(sources_at(path), options).dataset


def _manifest_at(path: str) -> Path | None:
    """The manifest at a path; a file name is looked for in the current folder too, where `data build` writes it."""
    if not path.endswith(".parquet") and not os.path.isdir(path):
        return None
    from ssl_lightning.data.manifest.schema import is_manifest

    packed = Path(os.environ.get(VARIABLE, "data")) / path
    here = Path(path)
    found = here if here.is_absolute() or path.startswith(".") or not packed.exists() else packed
    return found if found.exists() and is_manifest(found) else None


def open_labelled(path: str, split: str | None, options: SourceOptions = DEFAULT_OPTIONS) -> ImageDataset:
    """The images of one split, `split/class/file` in a folder or tar file; without a split, `class/file`.

    The folders `cifar-10-batches-py`, `cifar-100-python` and `stl10_binary` of torchvision's downloads are read too.

    Raises:
        DataError: If nothing is found, there is no such split, images are outside a class folder, or a tar file is
            broken or unsafe.
    """
    if is_downloaded(path):
        return open_downloaded(path, split or "train", locate)
    files = sources_at(path)
    if (shards := shards_of_split(files, split)) is not None:
        return _from_labels(path, split, shards, options)
    above = _folder_above(files, split)
    if options.label is not None and not is_folder(files):
        if split is None:
            return _from_labels(path, split, files, options)
        raise DataError(f"found data.label={options.label!r} and split {split!r} of {path}: give --data.split null")
    if options.label is not None:
        return _from_labels(path, split, [os.path.join(files[0], f"{above}{split or ''}")], options)
    if is_folder(files):
        pack, prefix = _folder_pack(files[0], f"{above}{split}/" if split else "", options), ""
    else:
        pack, prefix = _file_pack(files, options), f"{above}{split}/" if split else ""
    rows = [row for row, name in enumerate(pack.names) if name.startswith(prefix)]
    if not rows:
        raise DataError(_without_split(path, split, pack.dataset))
    classes, labels = _by_class(path, [pack.names[row].removeprefix(prefix) for row in rows])
    title = f"{path}/{above}{split}" if split else path
    return SelectedImages(pack.dataset, torch.tensor(rows), labels, classes, title=title, prefix=prefix)


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
    files = sources_at(path)
    return list(splits_at(files)) or _folders(files, _folder_above(files, beside))


def _folder_above(files: list[str], split: str | None) -> str:
    """The only top-level folder with a slash if the split lies in it and not beside it, else nothing."""
    if split is None:
        return ""
    tops = _folders(files, "")
    only = f"{tops[0]}/" if len(tops) == 1 and split not in tops else ""
    return only if only and split in _folders(files, only) else ""


def _folders(files: list[str], above: str) -> list[str]:
    """The folders directly in a folder of the source."""
    if is_folder(files):
        return _sorted({name for name in folders_in(os.path.join(files[0], above)) if not is_system_name(name)})
    names = (
        name.removeprefix(above) for name in files_table(tuple(files), times_of(files)).names if name.startswith(above)
    )
    return _sorted({name.split("/", 1)[0] for name in names if "/" in name})


def _from_labels(path: str, split: str | None, shards: list[str], options: SourceOptions) -> ImageDataset:
    """The images of a split with the labels of a column, or of sidecars."""
    options = replace(options, label=options.label or ANY_LABEL)
    dataset = _pack(shards, options).dataset
    if not dataset.classes:
        raise DataError(f"{path} has no labels; expected a column such as 'label': name it by --data.label")
    title = f"{path}/{split}" if split else path
    return SelectedImages(dataset, torch.arange(len(dataset)), title=title)


@dataclass(frozen=True, eq=False)
class _Pack:
    names: PackedNames
    dataset: ImageDataset


def _pack(files: list[str], options: SourceOptions) -> _Pack:
    pack = _folder_pack(files[0], "", options) if is_folder(files) else _file_pack(files, options)
    if len(pack.names) == 0 and (shards := _shards_inside(files, pack.dataset)):
        pack = _file_pack(shards, options)
    if len(pack.names) == 0:
        raise DataError(_without_images(files[0], pack.dataset))
    return pack


def _shards_inside(files: list[str], dataset: ImageDataset) -> list[str]:
    """The shards in a folder that holds no image."""
    if not is_folder(files):
        return []
    others = {reason: names for reason, names in dataset.skipped.items() if reason.startswith(NO_IMAGE)}
    shards = shards_in(files[0], (name for names in others.values() for name in names))
    rest = sum(map(len, dataset.skipped.values())) - len(shards)
    if shards and rank() == 0:
        log.info(
            "%s is read as %d shards, the first %s; %d other files are skipped", files[0], len(shards), shards[0], rest
        )
    return shards


def _without_split(path: str, split: str | None, dataset: ImageDataset) -> str:
    """The error message for a split without an image."""
    found = splits(path, split)
    if split is None or split in found:
        skipped = f" ({dataset.reports()[0].skipped_line()})" if dataset.skipped else ""
        where = path if split is None else f"{path}/{split}"
        return f"{where} holds no image that is used{skipped}: give data.include and data.exclude other patterns"
    there = ", ".join(found)
    if not there:
        return f"{path} has no split {split!r} and no other folder: expected {split}/<class>/<file> in it"
    return f"{path} has no split {split!r}, only {there}: give one of these, or --data.split null if these are classes"


def _without_images(path: str, dataset: ImageDataset) -> str:
    """The error message for a folder or tar file without an image."""
    skipped = [name for names in dataset.skipped.values() for name in names]
    tars = [name for name in skipped if is_tar(name)]
    if tars:
        return f"{path} holds no image but {len(tars)} tar files, which are not read: unpack it and give them as shards"
    found = f", {dataset.reports()[0].skipped_line()}" if skipped else ""
    return f"{path} holds no image ({' '.join(ENDINGS)}){found}: give a folder or file that does"


def _folder_pack(root: str, within: str, options: SourceOptions) -> _Pack:
    """A folder is listed each time, since it can change; its images are decoded once while a run uses them."""
    table, times = listed_folder(root, within, options.selection)
    root = os.path.join(root, within)
    if options.label is not None and len(table):
        if is_sidecar(options.label):
            labels, classes = labels_of_sidecars(table, options.label)
        else:
            labels, classes = labels_in_folder(Path(root), table.names, options.label)
        table = replace(table, labels=labels, classes=classes)
    key = (root, table.fingerprint, times, options)
    dataset = _in_use.get(key)
    if dataset is None:
        dataset = _in_use[key] = _dataset(table, options)
    return _Pack(table.names, dataset)


def _file_pack(files: list[str], options: SourceOptions) -> _Pack:
    return _decode_files_once(tuple(files), times_of(files), options)


@lru_cache(maxsize=3)
def _decode_files_once(files: tuple[str, ...], times: tuple[tuple[int, int], ...], options: SourceOptions) -> _Pack:
    """Training images and probe sets are often splits of one tar file, which is decoded once for all of them."""
    table = files_table(files, times, options.selection, options.label)
    return _Pack(table.names, _dataset(table, options))


def _dataset(table: ByteTable, options: SourceOptions) -> ImageDataset:
    labels = torch.full((len(table),), UNLABELLED)
    if table.labels is not None:
        labels = torch.from_numpy(table.labels)
        without = int((labels == UNLABELLED).sum())
        if without and table.classes and rank() == 0:
            log.warning("%s: %d of %d images have no label", table.containers[0], without, len(table))
    if options.label not in (None, ANY_LABEL) and not table.classes and len(table):
        raise DataError(
            f"{table.containers[0]} has no image with a label, but data.label={options.label!r} is requested"
        )
    return StoredImages(table, labels, table.classes, _sample_ids(table.names), options).in_memory()


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
