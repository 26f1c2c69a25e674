"""data report: one page about a collection, with its files, duplicates, clusters and a map of its images."""

import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from ssl_lightning.clustering import uniform_sample
from ssl_lightning.commands.collection.features import Features, checkpoint_at, of_checkpoint, of_file, of_statistics
from ssl_lightning.commands.collection.found import Collection, duplicate_groups
from ssl_lightning.commands.collection.layout import layout_of
from ssl_lightning.commands.collection.page import write_collection
from ssl_lightning.data import Subset
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.label_column import read_labels
from ssl_lightning.data.manifest.small_images import SmallImages, small_images
from ssl_lightning.data.manifest.survey import survey
from ssl_lightning.data.options import DEFAULT_OPTIONS
from ssl_lightning.engines import cores
from ssl_lightning.errors import UsageError
from ssl_lightning.files import reject_unwritable

log = logging.getLogger(__name__)
IMAGES = 10_000
"""Images with thumbnails, neighbors and a place on the map."""
BROKEN = 24
"""Broken files of each reason on the page."""


def main(
    manifest: str = "",
    out: str = "",
    checkpoint: str | None = None,
    features: str | None = None,
    subset: str | None = None,
    labels: str | None = None,
    labels_column: str = "label",
    images: int = IMAGES,
    num_clusters: int = 0,
    image_bytes: bool = False,
    workers: int | None = None,
    seed: int = 0,
) -> None:
    """Write a page about the images of a manifest, and a Parquet file of the same for viewers.

    The page opens from disk, without a server or a network.

    Args:
        manifest: A file of `data build`, or a folder of such files.
        out: Folder of the page, index.html, and of images.parquet.
        checkpoint: Folder of a run, or a checkpoint: its network gives the features of the images.
        features: A file of `ssl-lightning embed` on this manifest; without it and a checkpoint, features are simple
            statistics of the pixels.
        subset: A subset file, such as that of `data dedup`: only the images that it keeps are in the report.
        labels: A CSV file with labels, for the page alone. Its column sample_id has ids, or else its first column the
            names of members, with or without their endings.
        labels_column: Column of the labels. Without a CSV file, labels are those of the manifest, if it has some.
        images: Most images with a thumbnail and a place on the map; of more, this many random ones.
        num_clusters: Clusters of k-means; by default one for each 50 images, at most 100.
        image_bytes: Whether images.parquet also has a column `image` with thumbnails.
        workers: Number of processes that decode; by default one for each core.
        seed: Of the random choices.

    Raises:
        DataError: If a file is missing, damaged, or of other images.
        UsageError: For options that do not fit together, or if `out` cannot be written.
    """
    if not manifest or not out:
        raise UsageError("found no manifest or no folder; expected `ssl-lightning data report FILE --out FOLDER`")
    if checkpoint and features:
        raise UsageError("found --checkpoint and --features; expected one: a file has the features already")
    workers = cores() if workers is None else workers
    if images < 1 or workers < 1 or num_clusters < 0:
        raise UsageError(
            f"found images={images}, workers={workers}, num_clusters={num_clusters}; expected at least 1, 1 and 0"
        )
    path, folder = Path(manifest), Path(out)
    if folder.is_file():
        raise UsageError(f"found out={out}, a file; expected the name of a folder")
    reject_unwritable(folder / "index.html", "give --out")
    network = checkpoint_at(checkpoint) if checkpoint else None
    dataset = ManifestImages(path, DEFAULT_OPTIONS)
    kept = None if subset is None else np.sort(Subset(subset).of(dataset).sample_ids.numpy())
    found = survey(path, kept, BROKEN)
    column = found.labels
    source = "Labels are those of the manifest."
    if labels is not None:
        column = read_labels(Path(labels), labels_column, found.ids.tolist(), found.names)
        source = f"Labels are the column {labels_column} of {Path(labels).name}."
    usable = np.searchsorted(dataset.sample_ids.numpy(), found.ids)
    rows = _sampled(usable, images, seed)
    with small_images(path, dataset, rows, workers) as small:
        if not small.valid.all():
            log.warning(
                "%d of %d images cannot be read any more; the first is %s: see `ssl-lightning data check %s`",
                *(int((~small.valid).sum()), len(rows), dataset.name(int(small.rows[~small.valid][0])), manifest),
            )
        if network is not None:
            held = of_checkpoint(path, dataset, network, rows[small.valid])
        else:
            held = of_file(dataset, features, rows) if features else of_statistics(small)
        held = _readable(held, small)
        collection = Collection(
            manifest=path,
            survey=found,
            dataset=dataset,
            usable=usable,
            small=small,
            features=held,
            layout=layout_of(held.values, num_clusters, seed),
            duplicates=duplicate_groups(path, dataset, small, usable),
            labels=column,
            source_of_labels=source,
            is_subset=kept is not None,
        )
        write_collection(folder, collection, image_bytes)
    table = "" if collection.layout is None else f"\nimages for viewers: {folder / 'images.parquet'}"
    print(f"page: {folder / 'index.html'}{table}")


def _sampled(usable: Int64[np.ndarray, "N"], most: int, seed: int) -> Int64[np.ndarray, "n"]:
    """The images of the report: all of them, or random ones."""
    if len(usable) <= most:
        return usable
    log.info("showing %d random images of %d; --images gives another number", most, len(usable))
    return usable[uniform_sample(len(usable), most, seed).sort().values.numpy()]


def _readable(features: Features, small: SmallImages) -> Features:
    """The features of images that have a thumbnail."""
    kept = np.isin(features.rows, small.rows[small.valid])
    if kept.all():
        return features
    values = features.values[torch.from_numpy(kept)]
    without = features.without + int((~kept).sum())
    return Features(features.rows[kept], values, features.described, without)
