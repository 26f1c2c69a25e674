"""The page of a collection: what was found of its images, as sections."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int64
from PIL import Image
from torch import Tensor

from ssl_lightning.clustering.diagnostics import cluster_metrics, purity, size_metrics
from ssl_lightning.commands.collection_features import Features
from ssl_lightning.commands.collection_layout import Layout, numbered, write_table
from ssl_lightning.data.duplicates import BITS, DIFFERENCE
from ssl_lightning.data.limits import DEFAULT_LIMITS
from ssl_lightning.data.manifest.dedup import COPY, Rules, deduplicate
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.remains import remains_of
from ssl_lightning.data.manifest.small_images import THUMBNAIL, SmallImages, small_images
from ssl_lightning.data.manifest.subset_file import SubsetFile
from ssl_lightning.data.manifest.survey import Survey
from ssl_lightning.data.reasons import explained
from ssl_lightning.errors import DataError
from ssl_lightning.report.cells import Cell
from ssl_lightning.report.cluster_sheets import most_frequent_class
from ssl_lightning.report.collection_files import (
    Place,
    broken_section,
    formats_section,
    glance,
    places_section,
    size_text,
)
from ssl_lightning.report.collection_groups import (
    ClusterCard,
    clusters_section,
    duplicates_section,
    labels_section,
    outliers_section,
    tail_section,
)
from ssl_lightning.report.contact_sheet import representatives
from ssl_lightning.report.hover_map import hover_map
from ssl_lightning.report.page import Section, write_page
from ssl_lightning.report.sprites import Sprites
from ssl_lightning.report.thumbnails import as_jpeg

log = logging.getLogger(__name__)
GROUPS, MEMBERS = 24, 12
"""Groups of duplicates on the page, and images of each."""
CLUSTERS, PER_CLUSTER = 100, 10
"""Clusters on the page, and images of each."""
OUTLIERS = 24
LABELS = 40
"""Labels in the table of agreement."""
_BY = "by features"
_OF_THE_MAP = (
    "Each dot is an image. t-SNE places images with similar features next to each other; distances between groups, and "
    "their sizes, mean nothing. Point at a dot for its image and its nearest neighbors, click to keep it, and click on "
    "a neighbor to move there. Neighbors with a red frame are of another"
)


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
        found = deduplicate(manifest, images, rules, thumbnails=lambda rows: small.compared_of(images, rows))
    except DataError as error:
        log.warning("the page is without duplicates: %s", error)
        return None
    reasons = [found.reasons[row] for row in usable.tolist()]
    return SubsetFile(found.ids[usable], found.kept[usable], found.groups[usable], reasons)


def write_collection(folder: Path, collection: Collection, image_bytes: bool, workers: int) -> None:
    """Write the page, its files of thumbnails, and the table for viewers.

    Args:
        folder: Of the page.
        collection: What is on it.
        image_bytes: Whether the table has thumbnails.
        workers: Number of processes that decode further images.
    """
    for old in [*folder.glob("images-*.jpg"), *folder.glob("copies-*.jpg"), *folder.glob("broken-*.jpg")]:
        old.unlink()
    writer = _Writer(folder, collection, workers)
    sections = writer.sections()
    style = files("ssl_lightning.report").joinpath("collection.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{each.anchor}">{escape(_SHORT[each.anchor])}</a>' for each in sections if each.anchor)
    write_page(folder / "index.html", collection.manifest.name, sections, f"<style>{style}</style><nav>{links}</nav>")
    if collection.layout is not None:
        writer.write_table(image_bytes)


_SHORT = {
    "collection": "Collection",
    "sources": "Sources",
    "formats": "Formats and sizes",
    "broken": "Broken files",
    "duplicates": "Duplicates",
    "map": "Map and neighbors",
    "tail": "Long tail",
    "clusters": "Clusters",
    "outliers": "Outliers",
    "labels": "Labels",
}
"""Words of the links at the top."""


class _Writer:
    """Sections of the page; images are written with them."""

    def __init__(self, folder: Path, collection: Collection, workers: int) -> None:
        self.folder, self.it, self.workers = folder, collection, workers
        self.rows = collection.features.rows
        """Rows of the dataset of the images that the map has."""
        self.position = {row: place for place, row in enumerate(self.rows.tolist())}
        self.labels, self.names = numbered([collection.labels[collection.place(row)] for row in self.rows.tolist()])
        self.has_labels = bool(self.names) and collection.layout is not None
        self.groups = self._largest_groups()
        places = np.searchsorted(collection.small.rows, self.rows)
        log.info("writing thumbnails of %d images", len(self.rows))
        self.places = places
        self.sprites = Sprites.write(
            folder,
            "images-",
            _Taken(collection.small.thumbnails, places),
            collection.small.shapes[places],
            self._shown_first(),
        )
        self.others = self._write_others()

    def sections(self) -> list[Section]:
        """All sections that have something to show."""
        survey, layout = self.it.survey, self.it.layout
        found: list[Section | None] = [self._glance(), self._places(), self._formats(), self._broken()]
        if self.it.duplicates is not None:
            found.append(self._duplicates(self.it.duplicates))
        if layout is not None:
            sizes = layout.clustering.sizes
            note = f"Clusters are those of k-means, K = {len(sizes)}, of {self.it.features.described}."
            found += [
                self._map(layout),
                tail_section(sizes, size_metrics(sizes)["entropy"], note),
                self._clusters(layout),
                self._outliers(layout),
            ]
            if self.has_labels:
                found.append(self._labels(layout))
        assert len(survey.ids) == len(self.it.usable)
        return [each for each in found if each is not None]

    def write_table(self, image_bytes: bool) -> None:
        """Write `images.parquet`."""
        layout = self.it.layout
        assert layout is not None
        places = [self.it.place(row) for row in self.rows.tolist()]
        columns = {
            "sample_id": self.it.survey.ids[places].tolist(),
            "path": [self._path(row) for row in self.rows.tolist()],
            "width": self.it.survey.widths[places].tolist(),
            "height": self.it.survey.heights[places].tolist(),
            "size": self.it.survey.sizes[places].tolist(),
        }
        if self.has_labels:
            columns["label"] = [self.names[label] if label >= 0 else None for label in self.labels.tolist()]
        thumbnails = [self._encoded(place) for place in range(len(self.rows))] if image_bytes else None
        write_table(self.folder / "images.parquet", columns, layout, thumbnails)

    def _encoded(self, position: int) -> bytes:
        place = self.places[position]
        height, width = self.it.small.shapes[place].tolist()
        return as_jpeg(Image.fromarray(np.ascontiguousarray(self.it.small.thumbnails[place][:height, :width])))

    def _path(self, row: int) -> str:
        table = self.it.dataset.table
        container = os.fsencode(table.containers[table.container[row]]).decode("utf-8", "backslashreplace")
        return os.path.join(container, self.it.name(row))

    def _glance(self) -> Section:
        survey, it = self.it.survey, self.it
        usable = sum(usable for _, _, usable in survey.places.values())
        quarantined, missing = sum(survey.quarantined.values()), survey.statuses["missing"]
        size = sum(size for _, size, _ in survey.places.values())
        sources = {source for source, _ in survey.places}
        shards = sum(bool(shard) for _, shard in survey.places)
        tiles = [(f"{survey.rows:,}", "files", False), (f"{usable:,}", "usable images", False)]
        tiles += [(f"{quarantined:,}", "broken, quarantined", True)] if quarantined else []
        tiles += [(f"{missing:,}", "missing", True)] if missing else []
        tiles += [(size_text(size), "in all", False)]
        tiles += [(f"{len(sources):,}", "source" if len(sources) == 1 else "sources", False)]
        tiles += [(f"{shards:,}", "shard" if shards == 1 else "shards", False)] if shards else []
        if it.duplicates is not None:
            copies = int((np.bincount(it.duplicates.groups) - 1).clip(min=0).sum()) if len(it.usable) else 0
            tiles.append((f"{copies:,}", "copy" if copies == 1 else "copies", bool(copies)))
        notes = []
        if it.is_subset:
            notes.append(
                f"The report is about {len(it.usable):,} of {usable:,} usable images, those that the subset file keeps."
            )
        if len(it.small.rows) < len(it.usable):
            left = len(it.usable) - len(it.small.rows)
            notes.append(
                f"Map, neighbors, clusters and thumbnails are of {len(it.small.rows):,} random images; {left:,} are "
                "left out of them. Counts, sizes and duplicates are of all."
            )
        if it.features.without:
            notes.append(f"{it.features.without:,} images without features are left out of map and clusters.")
        notes.append(f"Similarity is that of {it.features.described}.")
        return glance(tiles, notes)

    def _places(self) -> Section:
        survey = self.it.survey
        places = [
            Place(os.path.join(source, shard), count, usable, size)
            for (source, shard), (count, size, usable) in survey.places.items()
        ]
        usable = sum(each.usable for each in places)
        return places_section(places, survey.quarantined, usable, survey.statuses["missing"])

    def _formats(self) -> Section:
        survey = self.it.survey
        words = {
            "formats": survey.formats.most_common(),
            "modes": survey.modes.most_common(),
        }
        orientations = Counter({_ORIENTATIONS.get(key, str(key)): n for key, n in survey.orientations.items()})
        words["Exif orientation"] = orientations.most_common()
        return formats_section(survey.widths, survey.heights, survey.sizes, words)

    def _broken(self) -> Section | None:
        survey = self.it.survey
        shown = [(each, remains_of(each, self.it.manifest.parent)) for each in survey.broken]
        decoded = [pixels for _, pixels in shown if pixels is not None]
        squares = np.zeros((len(decoded), THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
        for square, pixels in zip(squares, decoded, strict=True):
            square[: pixels.shape[0], : pixels.shape[1]] = pixels
        shapes = np.array([pixels.shape[:2] for pixels in decoded], dtype=np.int64).reshape(-1, 2)
        sprites = Sprites.write(self.folder, "broken-", squares, shapes)
        cells: dict[str, list[Cell]] = defaultdict(list)
        number = 0
        for file, pixels in shown:
            image = ""
            if pixels is not None:
                image = sprites.image(number, file.path, opens=False)
                number += 1
            lines = [size_text(file.size), *filter(None, [file.header]), os.path.join(file.source, file.shard)]
            cells[file.reason].append(Cell(image, file.member, lines))
        reasons = survey.quarantined
        return broken_section(
            [(explained(reason, DEFAULT_LIMITS), reasons[reason], found) for reason, found in cells.items()]
        )

    def _largest_groups(self) -> list[Int64[np.ndarray, "m"]]:
        """Rows of the dataset of each group that is shown, the kept one first."""
        found = self.it.duplicates
        if found is None or not len(found.groups):
            return []
        sizes = np.bincount(found.groups)
        largest = [group for group in np.argsort(-sizes, kind="stable")[:GROUPS].tolist() if sizes[group] > 1]
        groups = []
        for group in largest:
            places = np.flatnonzero(found.groups == group)
            places = places[np.argsort(~found.kept[places], kind="stable")]
            groups.append(self.it.usable[places])
        return groups

    def _shown_first(self) -> list[int]:
        """Positions of images in the order of the page."""
        shown = [
            self.position[row] for group in self.groups for row in group[:MEMBERS].tolist() if row in self.position
        ]
        layout = self.it.layout
        if layout is None:
            return shown
        for cluster in self._clusters_by_size(layout):
            shown += representatives(
                layout.clustering.labels, layout.clustering.distances, cluster, PER_CLUSTER
            ).tolist()
        shown += layout.outliers[:OUTLIERS]
        return shown + layout.clustering.labels.argsort(stable=True).tolist()

    def _write_others(self) -> dict[int, str]:
        """HTML of the images of shown groups that are not on the map, by row."""
        rows = sorted({row for group in self.groups for row in group[:MEMBERS].tolist()} - self.position.keys())
        if not rows:
            return {}
        with small_images(self.it.manifest, self.it.dataset, np.array(rows), min(self.workers, 1)) as small:
            sprites = Sprites.write(self.folder, "copies-", small.thumbnails, small.shapes)
        return {row: sprites.image(place, self.it.name(row), opens=False) for place, row in enumerate(rows)}

    def _image(self, row: int) -> str:
        """HTML of an image by its row of the dataset."""
        place = self.position.get(row)
        opens = self.it.layout is not None
        return self.others.get(row, "") if place is None else self.sprites.image(place, self.it.name(row), opens)

    def _duplicates(self, found: SubsetFile) -> Section | None:
        sizes = np.bincount(found.groups) if len(found.groups) else np.zeros(0, dtype=np.int64)
        copies = int((sizes - 1).clip(min=0).sum())
        equal = sum(reason == COPY for reason in found.reasons)
        place_of = {row: place for place, row in enumerate(self.it.usable.tolist())}
        shown = []
        for group in self.groups:
            cells = []
            for row in group[:MEMBERS].tolist():
                reason = found.reasons[place_of[row]]
                cells.append(
                    Cell(self._image(row), reason or "kept", (self.it.size_words(row), self.it.name(row)), not reason)
                )
            words = f"{len(group):,} images"
            shown.append((f"{words}, the first {MEMBERS} shown" if len(group) > MEMBERS else words, cells))
        return duplicates_section(int((sizes > 1).sum()), copies, equal, shown)

    def _map(self, layout: Layout) -> Section:
        it = self.it
        clusters = layout.clustering.labels
        by = "label" if self.has_labels else "cluster"
        details = [
            f"id {it.survey.ids[it.place(row)]}, cluster {cluster}, {it.size_words(row)}"
            for row, cluster in zip(self.rows.tolist(), clusters.tolist(), strict=True)
        ]
        names = self.names if self.has_labels else [f"cluster {k}" for k in range(len(layout.clustering.sizes))]
        markup = hover_map(
            {_BY: layout.points},
            self.sprites,
            self.labels if self.has_labels else clusters.long(),
            names,
            {_BY: layout.neighbors},
            [it.name(row) for row in self.rows.tolist()],
            details,
            has_search=True,
        )
        title = f"Map of {len(self.rows):,} images"
        return Section(title, note=f"{_OF_THE_MAP} {by}.", markup=markup, anchor="map")

    def _clusters_by_size(self, layout: Layout) -> list[int]:
        sizes = layout.clustering.sizes
        order = sizes.argsort(descending=True, stable=True).tolist()
        return [cluster for cluster in order if sizes[cluster]][:CLUSTERS]

    def _clusters(self, layout: Layout) -> Section:
        clustering = layout.clustering
        cards = []
        for cluster in self._clusters_by_size(layout):
            members = representatives(clustering.labels, clustering.distances, cluster, PER_CLUSTER).tolist()
            label, share = "", 0.0
            if self.has_labels:
                label, share = most_frequent_class(self.labels[clustering.labels == cluster], self.names) or ("", 0.0)
            images = [self._image(int(self.rows[member])) for member in members]
            cards.append(ClusterCard(cluster, int(clustering.sizes[cluster]), label, share, images))
        return clusters_section(cards, int((clustering.sizes > 0).sum()))

    def _outliers(self, layout: Layout) -> Section:
        cells = []
        for position in layout.outliers[:OUTLIERS]:
            row = int(self.rows[position])
            similarity = 1 - float(layout.distances[position].mean())
            lines = (self.it.name(row), self.it.size_words(row))
            cells.append(Cell(self._image(row), f"similarity {similarity:.2f}", lines))
        return outliers_section(cells)

    def _labels(self, layout: Layout) -> Section:
        labels, clustering = self.labels, layout.clustering
        metrics = cluster_metrics(clustering.sizes, clustering.labels, true_labels=labels)
        pure = purity(clustering.labels.long(), labels, len(clustering.sizes))
        known = labels >= 0
        in_clusters = clustering.labels[known].long().bincount(minlength=len(clustering.sizes))
        overall = float((pure.nan_to_num() * in_clusters).sum() / in_clusters.sum())
        counts = labels[known].bincount(minlength=len(self.names))
        chance = float((counts.double() / counts.sum()).square().sum())
        own = self._share_of_label(labels[layout.neighbors], labels)
        rows = [
            ("NMI", f"{metrics['nmi_labels']:.3f}", f"{metrics['nmi_chance']:.3f}"),
            ("AMI", f"{metrics['ami_labels']:.3f}", "0.000"),
            ("purity of clusters", f"{100 * overall:.1f} %", f"{100 * float(counts.max() / counts.sum()):.1f} %"),
            ("neighbors with the same label", f"{100 * float(own[known].nanmean()):.1f} %", f"{100 * chance:.1f} %"),
        ]
        agreement = []
        for label in counts.argsort(descending=True, stable=True).tolist()[:LABELS]:
            is_own = labels == label
            together = _share_in_clusters(clustering.labels.long(), is_own, known)
            agreement.append((self.names[label], int(counts[label]), together, float(own[is_own].nanmean())))
        named = [(self.names[label], int(counts[label])) for label in counts.argsort(descending=True, stable=True)]
        note = f"{self.it.source_of_labels} {int(known.sum()):,} of {len(labels):,} images have one."
        return labels_section(note, named, rows, agreement)

    def _share_of_label(self, near: Int[Tensor, "n m"], labels: Int[Tensor, "n"]) -> Tensor:
        """Share of the labeled neighbors of each image with its label; NaN without labeled ones."""
        known = near >= 0
        return ((near == labels.unsqueeze(1)) & known).sum(1) / known.sum(1)


def _share_in_clusters(clusters: Int[Tensor, "n"], is_own: Bool[Tensor, "n"], known: Bool[Tensor, "n"]) -> float:
    """Share of a label in the cluster of an image of this label, the mean over its images."""
    count = int(clusters.max()) + 1
    own, every = clusters[is_own].bincount(minlength=count), clusters[known].bincount(minlength=count)
    return float((own.square() / every.clamp(min=1)).sum() / own.sum().clamp(min=1))


class _Taken:
    """Chosen thumbnails of a file, which are read when they are used."""

    def __init__(self, thumbnails: np.ndarray, places: Int64[np.ndarray, "n"]) -> None:
        self.thumbnails, self.places = thumbnails, places
        self.shape = (len(places), *thumbnails.shape[1:])

    def __getitem__(self, rows: Int64[np.ndarray, "m"]) -> np.ndarray:
        return self.thumbnails[self.places[rows]]


_ORIENTATIONS = {
    1: "1, upright",
    2: "2, mirrored",
    3: "3, rotated by 180 degrees",
    4: "4, upside down and mirrored",
    5: "5, mirrored and rotated",
    6: "6, rotated by 90 degrees",
    7: "7, mirrored and rotated",
    8: "8, rotated by 270 degrees",
}
