"""Lists of image files in CSV, TSV, JSON lines or text: one row for each entry, in the order of the list."""

import csv
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ssl_lightning.data.dataset import PackedNames
from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.found import selected, size_of
from ssl_lightning.data.sources.labels import ANY_LABEL, LABELS, listed, numbered
from ssl_lightning.data.sources.paths import divided, is_address
from ssl_lightning.data.sources.selection import Selection
from ssl_lightning.errors import DataError
from ssl_lightning.processes import rank
from ssl_lightning.progress import progress

log = logging.getLogger(__name__)
ENDINGS = (".csv", ".tsv", ".jsonl", ".txt")
METADATA = ("metadata.csv", "metadata.jsonl")
"""Files in a folder of images that hold its labels, as in Hugging Face datasets."""
_PATHS = ("path", "file_name", "filename", "image", "file", "image_path", "filepath", "file_path")
_LONGEST = 4096
Entry = dict[str, Any]


def list_table(source: str, selection: Selection, label: str | None) -> ByteTable:
    """The images of a list. A missing file keeps its row, which is unreadable.

    Args:
        source: The list, with the column of paths after a colon where its name is unusual.
        selection: Patterns of names.
        label: Column of the labels; see `columns.label_column`.

    Raises:
        DataError: If it cannot be read, has no column of paths, or none of its files is there.
    """
    path = divided(source)[0]
    entries, column = _entries(source)
    paths = [_checked(entry[column], path) for entry in entries]
    base = os.path.dirname(path) or "."
    places = [_place(base, name) for name in paths]
    containers = list(dict.fromkeys([base, *(folder for folder, _ in places)]))
    number = {folder: position for position, folder in enumerate(containers)}
    files = [os.path.join(*place) for place in progress(places, f"listing {path}", "files")]
    there = np.array([os.path.isfile(file) for file in files], dtype=bool)
    if files and not there.any():
        raise DataError(f"{path} lists {len(files)} files, and none is there; first: {files[0]}: fix the paths")
    _report_duplicates(path, files)
    labels, classes = _labels(entries, label, path)
    table = ByteTable(
        containers,
        np.array([number[folder] for folder, _ in places], dtype=np.int32),
        PackedNames([name for _, name in places]),
        np.full(len(files), -1),
        np.array([size_of(file) if known else 0 for file, known in zip(files, there, strict=True)], dtype=np.int64),
        labels=labels,
        classes=classes,
    )
    return selected(table, selection)


def labels_in_folder(folder: Path, names: PackedNames, label: str) -> tuple[np.ndarray, list[str]]:
    """The labels of the images in a folder, from its `metadata.csv` or `metadata.jsonl`; -1 for images without a line.

    Args:
        folder: The folder.
        names: Paths of the images within it.
        label: Column of the labels; see `columns.label_column`.

    Raises:
        DataError: If there is no such file or column.
    """
    path = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder} has no {' or '.join(METADATA)} with labels, but data.label={label!r} is requested")
    entries, column = _entries(str(path))
    labels, classes = _labels(entries, label, str(path))
    if labels is None:
        raise DataError(f"{path} has no column of labels; expected 'label': name it by --data.label")
    known = {_checked(entry[column], str(path)): number for entry, number in zip(entries, labels, strict=True)}
    return np.array([known.get(name, -1) for name in names], dtype=np.int64), classes


def _entries(source: str) -> tuple[list[Entry], str]:
    """The lines of a list, and the column of paths."""
    path, named = divided(source)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            entries = list(_lines(Path(path), stream))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its disk") from error
    except (csv.Error, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a list ({error}): check the file") from error
    columns = list(entries[0]) if entries else [named or _PATHS[0]]
    column = named if named else next((name for name in _PATHS if name in columns), None)
    if column not in columns:
        expected = repr(named) if named else f"a column such as {', '.join(_PATHS[:4])}"
        raise DataError(f"{path} has the columns {listed(columns)}; expected {expected}: give {path}:<column>")
    return entries, column


def _lines(path: Path, stream: Any) -> Iterator[Entry]:
    ending = path.suffix.lower()
    if ending == ".txt":
        yield from ({_PATHS[0]: line.rstrip("\r\n")} for line in stream if line.strip())
    elif ending == ".jsonl":
        for number, line in enumerate(stream, 1):
            if line.strip():
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError(f"line {number} is no JSON object")
                yield entry
    else:
        rows = csv.reader(stream, delimiter="\t" if ending == ".tsv" else ",", strict=True)
        names = next(rows, [])
        for row in rows:
            if row and len(row) != len(names):
                raise ValueError(f"line {rows.line_num} has {len(row)} columns, the first {len(names)}")
            if row:
                yield dict(zip(names, row, strict=True))


def _checked(name: Any, path: str) -> str:
    if not isinstance(name, str) or not name or "\0" in name or len(name) > _LONGEST:
        raise DataError(f"{path} holds {str(name)[:50]!r} as a path; expected the path of a file: check the column")
    if is_address(name):
        raise DataError(f"{path} lists the address {name[:100]}; expected paths of files: download them first")
    return name.removeprefix("./")


def _place(base: str, name: str) -> tuple[str, str]:
    """Folder and name of an entry. The names of all images stay below their folder, whatever the list holds."""
    if not name.startswith("/") and ".." not in PurePosixPath(name).parts:
        return base, name
    folder, file = os.path.split(os.path.normpath(os.path.join(base, name)))
    return folder, file


def _labels(entries: list[Entry], label: str | None, path: str) -> tuple[np.ndarray | None, list[str]]:
    columns = list(entries[0]) if entries else []
    if label is None:
        return None, []
    if label == ANY_LABEL:
        label = next((name for name in LABELS if name in columns), None)
        if label is None:
            return None, []
    if label not in columns:
        raise DataError(f"{path} has no column {label!r}; expected data.label of {listed(columns)}")
    values = [entry.get(label) for entry in entries]
    texts = [None if value is None else str(value) for value in values]
    whole = all(text in (None, "") or re.fullmatch(r"-?\d{1,18}", text) for text in texts)
    return numbered([int(text) if text and whole else text for text in texts], None, path)


def _report_duplicates(path: str, files: list[str]) -> None:
    twice = len(files) - len(set(files))
    if twice and rank() == 0:
        log.warning("%s lists %d files again that it lists before; each entry is a row", path, twice)
