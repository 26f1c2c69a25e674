"""Labels of the usable images of a manifest, from its column `label` or from a key of its metadata."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ssl_lightning.data.hashing import OK
from ssl_lightning.data.manifest.schema import batches_of, pc
from ssl_lightning.data.sources.labels import ANY_LABEL, numbered
from ssl_lightning.data.sources.sidecars import label_in
from ssl_lightning.errors import DataError, UsageError

LABEL, METADATA = "label", "metadata"
"""Columns of a manifest."""
_KEY = f"{METADATA}:"


def labels_of(manifest: Path, label: str, ids: Int64[np.ndarray, "N"]) -> tuple[Int64[np.ndarray, "N"], list[str]]:
    """The class of each usable image, -1 where it has none, and the names of the classes.

    Args:
        manifest: The file, or a folder of them.
        label: `label`, or `metadata:<key>` for a key of the metadata.
        ids: The ids of the usable images, in ascending order.

    Raises:
        UsageError: For another name.
        DataError: If no image has such a label.
    """
    column = LABEL if label in (LABEL, ANY_LABEL) else METADATA if label.startswith(_KEY) and label != _KEY else ""
    if not column:
        raise UsageError(
            f"found data.label={label!r} for the manifest {manifest}; expected label or metadata:<key>, which "
            "`ssl-lightning data build --label ... --metadata true` records"
        )
    values: list[Any] = [None] * len(ids)
    for table in batches_of(manifest, ["sample_id", "status", column]):
        table = table.filter(pc.and_(pc.equal(table["status"], OK), pc.is_valid(table[column])))
        places = np.searchsorted(ids, table["sample_id"].to_numpy()).tolist()
        for place, text in zip(places, table[column].to_pylist(), strict=True):
            values[place] = text if column == LABEL else label_in(text.encode(), f"json:{label.removeprefix(_KEY)}")
    if all(value is None for value in values):
        raise DataError(
            f"found no usable image of {manifest} with {label!r}; expected some: build it with --label or --metadata"
        )
    return numbered(values, None, str(manifest))
