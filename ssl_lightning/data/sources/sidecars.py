"""Labels from files beside the images, as in WebDataset and img2dataset: `.cls`, `.txt` and `.json`."""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssl_lightning.data.sources.byte_table import ByteTable
from ssl_lightning.data.sources.labels import ANY_LABEL, numbered
from ssl_lightning.errors import DataError
from ssl_lightning.progress import progress

_KINDS = re.compile(r"(cls|txt)|json(?::(?P<key>.+))?")
_KEYS = ("label", "cls")
"""Usual names of the label in a `.json` file."""
_USUAL = ("cls", "json")
_NUMBER = re.compile(r"-?\d{1,18}")


def is_sidecar(label: str) -> bool:
    """Whether `data.label` names a kind of sidecar."""
    return _KINDS.fullmatch(label) is not None


def labels_of_sidecars(table: ByteTable, label: str) -> tuple[np.ndarray, list[str]]:
    """The label of each image, -1 where it has none.

    Args:
        table: Images of a folder or tar file.
        label: `cls`, `txt`, `json` (its `label` or `cls`) or `json:<key>`; `ANY_LABEL` for the first that is there.

    Raises:
        DataError: For another name.
    """
    kinds = _USUAL if label == ANY_LABEL else (label,)
    if not all(map(is_sidecar, kinds)):
        raise DataError(f"found data.label={label!r} for {table.containers[0]}; expected cls, txt, json or json:<key>")
    values = next(filter(any, (list(_values(table, kind)) for kind in kinds)), [None] * len(table))
    texts = [value if value is None or isinstance(value, int) else str(value) for value in values]
    whole = all(isinstance(text, int | None) or _NUMBER.fullmatch(text) for text in texts)
    return numbered([int(text) if whole and text is not None else text for text in texts], None, table.containers[0])


def _values(table: ByteTable, kind: str) -> Iterator[Any]:
    for row in progress(range(len(table)), f"reading labels of {table.containers[0]}", "files"):
        content = table.sidecar(row, kind.partition(":")[0])
        yield None if content is None else label_in(content, kind)


def label_in(content: bytes, kind: str) -> Any:
    """The label in a sidecar, a number or text; None if it has none.

    Args:
        content: Of the file.
        kind: `cls`, `txt`, `json` or `json:<key>`.
    """
    ending, _, key = kind.partition(":")
    if ending != "json":
        return content.decode("utf-8", "replace").strip() or None
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return None
    keys = [key] if key else _KEYS
    found = next((fields[name] for name in keys if name in fields), None) if isinstance(fields, dict) else None
    return found if isinstance(found, int | str) and found != "" else None
