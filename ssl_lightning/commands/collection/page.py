"""The page of a collection: its sections, files of thumbnails, and the table for viewers."""

import os
import re
from collections import Counter, defaultdict
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lightning.commands.collection.found import Collection
from ssl_lightning.commands.collection.groups import group_sections
from ssl_lightning.commands.collection.images import COPIES, IMAGES, ShownImages
from ssl_lightning.commands.collection.layout import write_table
from ssl_lightning.data.limits import DEFAULT_LIMITS
from ssl_lightning.data.manifest.remains import remains_of
from ssl_lightning.data.manifest.small_images import THUMBNAIL
from ssl_lightning.data.manifest.survey import Survey
from ssl_lightning.data.reasons import explained
from ssl_lightning.report.cells import Cell
from ssl_lightning.report.collection_files import (
    Place,
    broken_section,
    formats_section,
    glance,
    places_section,
    size_text,
)
from ssl_lightning.report.page import Section, write_page
from ssl_lightning.report.sprites import Sprites

BROKEN = "report-broken-"
_THUMBNAILS = re.compile(rf"({IMAGES}|{COPIES}|{BROKEN})\d+\.jpg")
"""Files of thumbnails of an earlier page, which a new page removes."""
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


def write_collection(folder: Path, found: Collection, image_bytes: bool) -> None:
    """Write the page, its files of thumbnails, and the table for viewers.

    Args:
        folder: Of the page.
        found: What is on it.
        image_bytes: Whether the table has thumbnails.
    """
    for old in folder.iterdir():
        if _THUMBNAILS.fullmatch(old.name):
            old.unlink()
    images = ShownImages(folder, found)
    of_files = [_glance(found), _places(found.survey), _formats(found.survey), _broken(found, folder)]
    sections = [each for each in (*of_files, *group_sections(found, images)) if each is not None]
    style = files("ssl_lightning.report").joinpath("collection.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{each.anchor}">{escape(_SHORT[each.anchor])}</a>' for each in sections)
    write_page(folder / "index.html", found.manifest.name, sections, f"<style>{style}</style><nav>{links}</nav>")
    if found.layout is not None:
        write_table(folder / "images.parquet", _columns(found, images), found.layout, images.encoded(image_bytes))


def _columns(found: Collection, images: ShownImages) -> dict[str, Any]:
    """Columns of the table for viewers beside those of the layout."""
    rows = images.rows.tolist()
    places = np.searchsorted(found.usable, images.rows)
    survey, columns = found.survey, {}
    columns["sample_id"] = survey.ids[places]
    columns["path"] = [found.path(row) for row in rows]
    columns["width"], columns["height"], columns["size"] = (
        each[places] for each in (survey.widths, survey.heights, survey.sizes)
    )
    if images.names:
        columns["label"] = [images.names[label] if label >= 0 else None for label in images.labels.tolist()]
    return columns


def _glance(it: Collection) -> Section:
    survey = it.survey
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
        copies = it.duplicates.copies
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


def _places(survey: Survey) -> Section:
    places = [
        Place(os.path.join(source, shard), count, usable, size)
        for (source, shard), (count, size, usable) in survey.places.items()
    ]
    usable = sum(each.usable for each in places)
    return places_section(places, survey.quarantined, usable, survey.statuses["missing"])


def _formats(survey: Survey) -> Section:
    words = {
        "formats": survey.formats.most_common(),
        "modes": survey.modes.most_common(),
    }
    orientations = Counter({_ORIENTATIONS.get(key, str(key)): n for key, n in survey.orientations.items()})
    words["Exif orientation"] = orientations.most_common()
    return formats_section(survey.widths, survey.heights, survey.sizes, words)


def _broken(it: Collection, folder: Path) -> Section | None:
    survey = it.survey
    shown = [(each, remains_of(each, it.manifest.parent)) for each in survey.broken]
    decoded = [pixels for _, pixels in shown if pixels is not None]
    squares = np.zeros((len(decoded), THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
    for square, pixels in zip(squares, decoded, strict=True):
        square[: pixels.shape[0], : pixels.shape[1]] = pixels
    shapes = np.array([pixels.shape[:2] for pixels in decoded], dtype=np.int64).reshape(-1, 2)
    sprites = Sprites.write(folder, BROKEN, squares, shapes)
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
