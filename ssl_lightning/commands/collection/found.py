"""Collection: what was found of the images of a manifest, for its page."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ssl_lightning.commands.collection.features import Features
from ssl_lightning.commands.collection.layout import Layout
from ssl_lightning.data.duplicates import BITS, DIFFERENCE
from ssl_lightning.data.manifest.dedup import Rules, deduplicate
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.small_images import SmallImages
from ssl_lightning.data.manifest.subset_file import SubsetFile
from ssl_lightning.data.manifest.survey import Survey
from ssl_lightning.errors import DataError
from ssl_lightning.report.collection_files import size_text

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Collection:
    """What is on the page.

    Attributes:
        manifest: The file, or a folder of them.
        survey: Counts and columns of the manifest.
        dataset: Its usable images.
        usable: Rows of the dataset that the report is about, in the order of the survey.
        small: Small copies of some of them.
        features: Features of those that have some.
        layout: Of the images with features; None for too few.
        duplicates: Groups of duplicates of all usable images; None if they are unknown.
        labels: Label of each image of the survey; empty for none.
        source_of_labels: A sentence about them.
        is_subset: Whether the report is about a part of the usable images.
    """

    manifest: Path
    survey: Survey
    dataset: ManifestImages
    usable: Int64[np.ndarray, "N"]
    small: SmallImages
    features: Features
    layout: Layout | None
    duplicates: SubsetFile | None
    labels: Sequence[str]
    source_of_labels: str
    is_subset: bool

    def place(self, row: int) -> int:
        """Position of a row of the dataset in the columns of the survey."""
        return int(np.searchsorted(self.usable, row))

    def name(self, row: int) -> str:
        """Name of the member of a row, as text."""
        return self.survey.names[self.place(row)]

    def path(self, row: int) -> str:
        """Where the file of a row is on this machine, as text."""
        table = self.dataset.table
        container = os.fsencode(table.containers[table.container[row]]).decode("utf-8", "backslashreplace")
        return os.path.join(container, self.name(row))

    def size_words(self, row: int) -> str:
        """Size of an image in pixels and bytes."""
        place = self.place(row)
        width, height = self.survey.widths[place], self.survey.heights[place]
        return f"{width} x {height}, {size_text(int(self.survey.sizes[place]))}"


def duplicate_groups(
    manifest: Path, images: ManifestImages, small: SmallImages, usable: Int64[np.ndarray, "N"]
) -> SubsetFile | None:
    """The groups of `data dedup` with its defaults; None, which is logged, where the manifest has no hashes.

    Args:
        manifest: The file, or a folder of them.
        images: Its images.
        small: Small copies of some of them, which are not decoded again.
        usable: Rows that are considered.
    """
    rules = Rules(BITS, DIFFERENCE, 0.95, False, "largest")
    try:
        found = deduplicate(manifest, images, rules, lambda rows: small.compared_of(images, rows))
    except DataError as error:
        log.warning("the page is without duplicates: %s", error)
        return None
    reasons = [found.reasons[row] for row in usable.tolist()]
    return SubsetFile(found.ids[usable], found.kept[usable], found.groups[usable], reasons)


def largest_groups(found: SubsetFile | None, usable: Int64[np.ndarray, "N"], most: int) -> list[Int64[np.ndarray, "m"]]:
    """Rows of the dataset of each of the largest groups of duplicates, the kept one first.

    Args:
        found: The groups; None if they are unknown.
        usable: Rows of the dataset that they are about.
        most: Number of groups.
    """
    if found is None or not len(found.groups):
        return []
    sizes = np.bincount(found.groups)
    groups = []
    for group in np.argsort(-sizes, kind="stable")[:most].tolist():
        if sizes[group] > 1:
            places = np.flatnonzero(found.groups == group)
            groups.append(usable[places[np.argsort(~found.kept[places], kind="stable")]])
    return groups
