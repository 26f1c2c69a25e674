"""Sections of the page of a collection about groups of its images: duplicates, map, clusters and outliers."""

import numpy as np

from ssl_lightning.clustering.diagnostics import size_metrics
from ssl_lightning.commands.collection.found import Collection
from ssl_lightning.commands.collection.images import MEMBERS, OUTLIERS, ShownImages, clusters_by_size, members_of
from ssl_lightning.commands.collection.labels import agreement_section
from ssl_lightning.commands.collection.layout import Layout
from ssl_lightning.data.manifest.dedup import COPY
from ssl_lightning.data.manifest.subset_file import SubsetFile
from ssl_lightning.report.cells import Cell
from ssl_lightning.report.cluster_sheets import most_frequent_class
from ssl_lightning.report.collection_groups import (
    ClusterCard,
    clusters_section,
    duplicates_section,
    outliers_section,
    tail_section,
)
from ssl_lightning.report.hover_map import hover_map
from ssl_lightning.report.page import Section

_BY = "by features"
_OF_THE_MAP = (
    "Each dot is an image. t-SNE places images with similar features next to each other; distances between groups, and "
    "their sizes, mean nothing. Point at a dot for its image and its nearest neighbors, click to keep it, and click on "
    "a neighbor to move there. Neighbors with a red frame are of another"
)


def group_sections(found: Collection, images: ShownImages) -> list[Section | None]:
    """All sections; None for one without content.

    Args:
        found: What is on the page.
        images: Its thumbnails.
    """
    sections = [None if found.duplicates is None else _duplicates(found, found.duplicates, images)]
    layout = found.layout
    if layout is None:
        return sections
    sizes = layout.clustering.sizes
    note = f"Clusters are those of k-means, K = {len(sizes)}, of {found.features.described}."
    sections += [
        _map(found, layout, images),
        tail_section(sizes, size_metrics(sizes)["entropy"], note),
        _clusters(layout, images),
        _outliers(found, layout, images),
    ]
    if images.names:
        sections.append(agreement_section(layout, images.labels, images.names, found.source_of_labels))
    return sections


def _duplicates(found: Collection, duplicates: SubsetFile, images: ShownImages) -> Section | None:
    sizes = np.bincount(duplicates.groups) if len(duplicates.groups) else np.zeros(0, dtype=np.int64)
    shown = []
    for group in images.groups:
        cells = []
        for row in group[:MEMBERS].tolist():
            reason = duplicates.reasons[found.place(row)]
            lines = (found.size_words(row), found.name(row))
            cells.append(Cell(images.image(row), reason or "kept", lines, not reason))
        words = f"{len(group):,} images"
        shown.append((f"{words}, the first {MEMBERS} shown" if len(group) > MEMBERS else words, cells))
    equal = sum(reason == COPY for reason in duplicates.reasons)
    return duplicates_section(int((sizes > 1).sum()), duplicates.copies, equal, shown)


def _map(found: Collection, layout: Layout, images: ShownImages) -> Section:
    clusters, rows = layout.clustering.labels.long(), images.rows.tolist()
    numbers = zip(rows, clusters.tolist(), strict=True)
    details = [
        f"id {found.survey.ids[found.place(row)]}, cluster {cluster}, {found.size_words(row)}"
        for row, cluster in numbers
    ]
    markup = hover_map(
        {_BY: layout.points},
        images.sprites,
        images.labels if images.names else clusters,
        images.names or [f"cluster {cluster}" for cluster in range(len(layout.clustering.sizes))],
        {_BY: layout.neighbors},
        [found.name(row) for row in rows],
        details,
        has_search=True,
    )
    note = f"{_OF_THE_MAP} {'label' if images.names else 'cluster'}."
    return Section(f"Map of {len(rows):,} images", note=note, markup=markup, anchor="map")


def _clusters(layout: Layout, images: ShownImages) -> Section:
    clustering, cards = layout.clustering, []
    for cluster in clusters_by_size(layout):
        own = images.labels[clustering.labels == cluster]
        label, share = most_frequent_class(own, images.names) or ("", 0.0)
        shown = [images.image(int(images.rows[member])) for member in members_of(layout, cluster)]
        cards.append(ClusterCard(cluster, int(clustering.sizes[cluster]), label, share, shown))
    return clusters_section(cards, int((clustering.sizes > 0).sum()))


def _outliers(found: Collection, layout: Layout, images: ShownImages) -> Section:
    cells = []
    for position in layout.outliers[:OUTLIERS]:
        row = int(images.rows[position])
        similarity = 1 - float(layout.distances[position].mean())
        lines = (found.name(row), found.size_words(row))
        cells.append(Cell(images.image(row), f"similarity {similarity:.2f}", lines))
    return outliers_section(cells)
