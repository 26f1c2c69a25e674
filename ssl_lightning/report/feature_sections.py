"""Sections of a page about features: a map of test images, before and after training, and nearest neighbors."""

import logging
import warnings
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal

from jaxtyping import Int
from PIL import Image
from torch import Tensor

from ssl_lightning.errors import one_line
from ssl_lightning.report.cluster_sheets import ReadsImages
from ssl_lightning.report.feature_sample import FILES, IMAGES, TRAINING_IMAGES, FeatureSample, read_sample
from ssl_lightning.report.hover_map import hover_map
from ssl_lightning.report.page import Figure, Section
from ssl_lightning.report.thumbnails import COLUMNS, Thumbnails
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)
MAPS = "maps.png"
"""The maps as one image, in the folder of the report."""
PROJECTION: Literal["tsne", "pca"] = "tsne"
"""How features become points, see `to_plane`."""
OF_THE_MAP = (
    "Each dot is a test image. t-SNE places images with similar features next to each other: where the dots of a class "
    "form a group of their own, few labels suffice to recognize it. Distances between groups, and their sizes, mean "
    "nothing."
)
OF_TRAINING_IMAGES = (
    "Each dot is a training image. t-SNE places images with similar features next to each other: hover over a group to "
    "find what its images have in common. Distances between groups, and their sizes, mean nothing."
)
OF_TRAINING_NEIGHBORS = (
    "The first column is a training image, the others are the images of the map with the most similar features, by "
    "cosine."
)
OF_NEIGHBORS = (
    "The first column is a test image, the others are the training images with the most similar features, by cosine. "
    "k-NN accuracy is high where most of them are of the class of the image."
)


def samples_of(folder: Path) -> dict[str, FeatureSample]:
    """The samples in the folder of a report, as in `FILES`; the last one alone if they are of different images."""
    found = {kind: read_sample(folder / name) for kind, name in FILES.items()}
    first, last = found["start"], found["last"]
    if last is None:
        return {}
    if first is None or last.step == 0 or not first.is_of_the_images_of(last):
        return {"last": last}
    return {"start": first, "last": last}


def map_section(folder: Path, start: str) -> Section | None:
    """The maps of the samples in a folder; None without samples or thumbnails, or for fewer than four images.

    The same maps are an image, `MAPS`, for external loggers and for documents.

    Args:
        folder: Folder of the report.
        start: Name of the evaluation at step 0, see `name_of_initial_weights`.
    """
    samples = {_title(sample, start): sample for sample in samples_of(folder).values()}
    if not samples:
        return None
    try:
        from ssl_lightning.report.feature_map import draw_feature_maps, to_plane  # needs matplotlib

        with Image.open(folder / IMAGES) as image:
            thumbnails = Thumbnails(IMAGES, image.width // COLUMNS)
        points = {title: to_plane(sample.features, PROJECTION) for title, sample in samples.items()}
        last = list(samples.values())[-1]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # of names in other scripts, which the page has
            draw_feature_maps(points, last.labels, last.classes).savefig(folder / MAPS, dpi=80)
    except (ImportError, OSError, ValueError) as error:
        log.info("the report has no map of features (%s)", one_line(str(error)))
        return None
    neighbors = {title: sample.neighbors for title, sample in samples.items()}
    markup = hover_map(points, thumbnails, last.labels, last.classes, neighbors, _within_one_folder(last.paths))
    if last.probe_set == TRAINING_IMAGES:
        title, note = f"Map of the features of {len(last.rows):,} training images", OF_TRAINING_IMAGES
    else:
        title, note = f"Map of the features of {len(last.rows):,} test images of {last.probe_set}", OF_THE_MAP
    return Section(title, note=note, markup=markup)


def draw_neighbors_of_samples(folder: Path, training: ReadsImages, own: Int[Tensor, "N"], test: ReadsImages) -> None:
    """Write an image file for each sample: some test images with their nearest training images.

    Args:
        folder: Folder of the report.
        training: Training images of the primary probe set.
        own: Class of each of them, -1 for none.
        test: Its test images.
    """
    from ssl_lightning.report.clusters import draw_neighbors  # needs matplotlib

    for kind, sample in samples_of(folder).items():
        if not sample.nearest.numel():
            continue
        queries, _ = test.read(sample.rows[sample.queries])
        neighbors, _ = training.read(sample.nearest.flatten())
        classes = sample.labels[sample.queries].unsqueeze(1)
        other = (own[sample.nearest] != classes) & (classes != UNLABELLED)
        draw_neighbors(list(queries), list(neighbors), other).savefig(folder / _neighbors_file(kind), dpi=90)


def neighbor_section(folder: Path, start: str) -> Section | None:
    """The files of `draw_neighbors_of_samples`; None without any.

    Args:
        folder: Folder of the report.
        start: Name of the evaluation at step 0, see `name_of_initial_weights`.
    """
    samples = samples_of(folder)
    titles = {_neighbors_file(kind): _title(sample, start) for kind, sample in samples.items()}
    figures = [Figure(name, title) for name, title in titles.items() if (folder / name).is_file()]
    of_training = any(sample.probe_set == TRAINING_IMAGES for sample in samples.values())
    note = OF_TRAINING_NEIGHBORS if of_training else OF_NEIGHBORS
    return Section("Nearest neighbors", figures=figures, note=note) if figures else None


def _within_one_folder(paths: Sequence[str]) -> list[str]:
    """Paths from the innermost folder that all images have in common: the page has no names of other folders."""
    parts = [path.split("/") for path in paths]
    shared = takewhile(lambda names: len(set(names)) == 1, zip(*(each[:-1] for each in parts), strict=False))
    depth = sum(1 for _ in shared)
    return ["/".join(each[depth:]) for each in parts]


def _title(sample: FeatureSample, start: str) -> str:
    return f"step {sample.step:,}" if sample.step else start


def _neighbors_file(kind: str) -> str:
    return f"neighbors-{kind}.png"
