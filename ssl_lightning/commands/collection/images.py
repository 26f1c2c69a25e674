"""ShownImages: the thumbnails of the page of a collection, in the order in which it shows them."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_lightning.commands.collection.found import Collection, largest_groups
from ssl_lightning.commands.collection.layout import Layout, numbered
from ssl_lightning.data.manifest.small_images import small_images
from ssl_lightning.report.contact_sheet import representatives
from ssl_lightning.report.sprites import Sprites
from ssl_lightning.report.thumbnails import as_jpeg

log = logging.getLogger(__name__)
GROUPS, MEMBERS = 24, 12
"""Groups of duplicates on the page, and images of each."""
CLUSTERS, PER_CLUSTER = 100, 10
"""Clusters on the page, and images of each."""
OUTLIERS = 24
IMAGES, COPIES = "report-images-", "report-copies-"
"""Names of the files of thumbnails up to their numbers."""


class ShownImages:
    """Thumbnails of the images of the map, and of the duplicates that are not on it.

    Args:
        folder: Of the page, in which the files of thumbnails are written.
        found: What is on the page.

    Attributes:
        rows: Rows of the dataset of the images that the map has, by their position.
        labels: Label of each, -1 for none.
        names: Names of the labels; empty without a label.
        groups: Rows of the dataset of each displayed group of duplicates, the kept one first.
        sprites: The files of thumbnails.
    """

    def __init__(self, folder: Path, found: Collection) -> None:
        self.found, self.rows = found, found.features.rows
        self.labels, self.names = numbered([found.labels[found.place(row)] for row in self.rows.tolist()])
        self.groups = largest_groups(found.duplicates, found.usable, GROUPS)
        self._position = {row: position for position, row in enumerate(self.rows.tolist())}
        self._small = np.searchsorted(found.small.rows, self.rows)
        log.info("writing thumbnails of %d images", len(self.rows))
        small = found.small
        self.sprites = Sprites.write(
            folder, IMAGES, small.thumbnails, small.shapes[self._small], self._shown_first(), self._small
        )
        self._others = self._write_others(folder)

    def image(self, row: int) -> str:
        """HTML of an image of the map or of a displayed group of duplicates.

        Args:
            row: Of the dataset.
        """
        position = self._position.get(row)
        if position is None:
            return self._others.get(row, "")
        return self.sprites.image(position, self.found.name(row), opens=self.found.layout is not None)

    def encoded(self, needed: bool) -> list[bytes] | None:
        """A JPEG file of each thumbnail of the map; None if they are not needed."""
        if not needed:
            return None
        small, encoded = self.found.small, []
        for place in self._small.tolist():
            height, width = small.shapes[place].tolist()
            pixels = np.ascontiguousarray(small.thumbnails[place][:height, :width])
            encoded.append(as_jpeg(Image.fromarray(pixels)))
        return encoded

    def _shown_first(self) -> list[int]:
        """Positions of images in the order of the page."""
        members = [row for group in self.groups for row in group[:MEMBERS].tolist()]
        shown = [self._position[row] for row in members if row in self._position]
        layout = self.found.layout
        if layout is None:
            return shown
        for cluster in clusters_by_size(layout):
            shown += members_of(layout, cluster)
        return [*shown, *layout.outliers[:OUTLIERS], *layout.clustering.labels.argsort(stable=True).tolist()]

    def _write_others(self, folder: Path) -> dict[int, str]:
        """HTML of the images of displayed groups that are not on the map, by row."""
        rows = sorted({row for group in self.groups for row in group[:MEMBERS].tolist()} - self._position.keys())
        if not rows:
            return {}
        with small_images(self.found.manifest, self.found.dataset, np.array(rows), workers=1) as small:
            sprites = Sprites.write(folder, COPIES, small.thumbnails, small.shapes)
        return {row: sprites.image(place, self.found.name(row), opens=False) for place, row in enumerate(rows)}


def clusters_by_size(layout: Layout) -> list[int]:
    """Ids of the clusters of the page, the largest first."""
    sizes = layout.clustering.sizes
    order: list[int] = sizes.argsort(descending=True, stable=True).tolist()
    return [cluster for cluster in order if sizes[cluster]][:CLUSTERS]


def members_of(layout: Layout, cluster: int) -> list[int]:
    """Positions of the displayed images of a cluster, nearest to its center first."""
    clustering = layout.clustering
    return representatives(clustering.labels, clustering.distances, cluster, PER_CLUSTER).tolist()
