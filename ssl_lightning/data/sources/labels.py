"""Labels of a source: the usual names of their column, and numbers of classes."""

from typing import Any

import numpy as np

from ssl_lightning.data.class_names import normalized
from ssl_lightning.errors import DataError
from ssl_lightning.types import UNLABELLED

ANY_LABEL = "*"
"""The label column is found by the usual names."""
LABELS = ("label", "labels", "fine_label", "class", "cls", "target")


def numbered(labels: list[Any], classes: list[str] | None, source: str) -> tuple[np.ndarray, list[str]]:
    """Numbers of classes, and their names.

    Args:
        labels: Numbers or names; None and -1 for no label.
        classes: The names that numbers refer to; None if they are the classes themselves.
        source: For the message.

    Raises:
        DataError: If a number has no name.
    """
    values = [None if label in (None, "", UNLABELLED) else label for label in labels]
    given = {label for label in values if label is not None}
    if classes and all(isinstance(label, int) for label in given):
        if odd := [label for label in given if not 0 <= label < len(classes)]:
            raise DataError(f"{source} has the label {odd[0]}, but names of {len(classes)} classes: check its metadata")
        return np.array([UNLABELLED if each is None else each for each in values], dtype=np.int64), list(classes)
    order = sorted(given, key=lambda label: (0, label, "") if isinstance(label, int) else (1, 0, str(label)))
    names = [normalized(str(label)) for label in order]
    classes = list(dict.fromkeys(names))
    number = {label: classes.index(name) for label, name in zip(order, names, strict=True)}
    return np.array([UNLABELLED if each is None else number[each] for each in values], dtype=np.int64), classes


def listed(names: list[str]) -> str:
    """The first names."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
