"""Labels of a collection for its report: a column of a CSV file, joined by id or by the name of the member."""

import csv
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ssl_lightning.data.manifest.schema import to_text
from ssl_lightning.errors import DataError, UsageError

log = logging.getLogger(__name__)
BY_ID = "sample_id"
"""The column that is compared with ids, where there is one; else the first column is compared with names."""
_NAMED = 3


def read_labels(path: Path, column: str, ids: Sequence[int], names: Sequence[str]) -> list[str]:
    """The label of each image, empty for none.

    The column `sample_id` is compared with the ids, or else the first column with the names of the members, with or
    without their folders and endings. A name that several images have gives none of them a label.

    Args:
        path: A CSV file with a line of column names.
        column: The column of labels.
        ids: Of the images.
        names: Member of each image, as text of a manifest.

    Raises:
        DataError: If the file cannot be read, or names none of the images.
        UsageError: If it has no such column.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = list(csv.reader(file))
    except (OSError, csv.Error) as error:
        raise DataError(f"found {path}, which cannot be read ({error}); expected a CSV file of labels") from error
    head = lines[0] if lines else []
    if column not in head:
        raise UsageError(
            f"found no column {column!r} in {path}, only {', '.join(head[:10]) or 'an empty file'}; give one of these "
            "with --labels_column"
        )
    key, value = (head.index(BY_ID) if BY_ID in head else 0), head.index(column)
    of_key = {line[key]: line[value].strip() for line in lines[1:] if len(line) > max(key, value)}
    found = [of_key.get(str(each), "") for each in ids] if BY_ID in head else _by_names(of_key, names)
    if not any(found):
        keys = ", ".join(list(of_key)[:_NAMED])
        raise DataError(
            f"found no image of the manifest in the column {head[key]!r} of {path} ({keys}, ...); expected names of "
            f"members, or ids in a column {BY_ID!r}"
        )
    log.info(
        "labels: %d of %d images have one, from the column %r of %s",
        len([*filter(None, found)]),
        len(found),
        column,
        path,
    )
    return found


def _by_names(labels: dict[str, str], names: Sequence[str]) -> list[str]:
    """The label of each name: of the whole name, of the last part of its path, or of that without its ending."""
    of_text = {to_text(name): label for name, label in labels.items()}
    forms = [(name, os.path.basename(name), os.path.splitext(os.path.basename(name))[0]) for name in names]
    counts = [Counter(form[place] for form in forms) for place in range(3)]
    found = []
    for form in forms:
        known = (of_text.get(text, "") for text, count in zip(form, counts, strict=True) if count[text] == 1)
        found.append(next(filter(None, known), ""))
    return found
