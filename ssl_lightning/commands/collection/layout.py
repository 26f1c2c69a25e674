"""Neighbors, clusters and a map of the images of a collection, and the table of them for viewers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.callbacks.cluster_sources import default_count
from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.kmeans import KMeans
from ssl_lightning.clustering.rows import unit_rows
from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation.knn import nearest_rows
from ssl_lightning.files import write_atomically
from ssl_lightning.report.feature_map import FEWEST, to_plane

log = logging.getLogger(__name__)
NEIGHBORS = 8
"""Neighbors of each image."""


@dataclass(frozen=True, eq=False)
class Layout:
    """How the images of a report lie to each other.

    Attributes:
        points: Places on the map.
        neighbors: Positions of the nearest images of each image, nearest first.
        distances: Cosine distances to them, 1 - cosine.
        clustering: The clusters.
    """

    points: Float[Tensor, "n 2"]
    neighbors: Int[Tensor, "n m"]
    distances: Float[Tensor, "n m"]
    clustering: Clustering

    @property
    def outliers(self) -> list[int]:
        """Positions of the images, those with the farthest neighbors first."""
        return self.distances.mean(1).argsort(descending=True, stable=True).tolist()


def layout_of(features: Float[Tensor, "n D"], num_clusters: int, seed: int) -> Layout | None:
    """Neighbors, k-means clusters and t-SNE of features; None for fewer images than a map needs.

    Args:
        features: Of the images.
        num_clusters: K; 0 for one for each 50 images, at most 100.
        seed: Of k-means and t-SNE.

    Raises:
        UsageError: For more clusters than images.
    """
    count = len(features)
    if count < FEWEST:
        return None
    if num_clusters > count:
        raise UsageError(f"found num_clusters={num_clusters} for {count} images; expected at most {count}")
    units = unit_rows(features.float())
    neighbors = nearest_rows(units, torch.arange(count), min(NEIGHBORS, count - 1))
    distances = torch.stack([1 - (units[near] @ unit) for unit, near in zip(units, neighbors, strict=True)])
    clusterer = KMeans(metric="cosine", init="k-means++")
    clustering = clusterer(units, num_clusters or default_count(count), seed)
    log.info("placing %d images on the map", count)
    return Layout(to_plane(units, seed=seed), neighbors, distances.clamp(min=0), clustering)


def write_table(
    path: Path,
    columns: dict[str, Any],
    layout: Layout,
    thumbnails: Sequence[bytes] | None = None,
) -> None:
    """Write a Parquet file with a row for each image, which viewers open.

    Args:
        path: The file.
        columns: Further columns, such as `path`.
        layout: Of the images.
        thumbnails: An encoded image for each row.
    """
    import pyarrow as pa
    from pyarrow import parquet

    table = {name: pa.array(values) for name, values in columns.items()}
    table |= {"x": pa.array(layout.points[:, 0].numpy()), "y": pa.array(layout.points[:, 1].numpy())}
    table["cluster"] = pa.array(layout.clustering.labels.numpy())
    ids, distances = (pa.array(list(each.numpy())) for each in (layout.neighbors, layout.distances))
    table["neighbors"] = pa.StructArray.from_arrays([ids, distances], ["ids", "distances"])
    if thumbnails is not None:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table["image"] = pa.array([{"bytes": each, "path": None} for each in thumbnails], kind)
    write_atomically(path, lambda file: parquet.write_table(pa.table(table), file))


def numbered(labels: Sequence[str]) -> tuple[Int[Tensor, "n"], list[str]]:
    """Numbers of labels, -1 for none, and their names, the most frequent first.

    Args:
        labels: Of each image; empty for none.
    """
    values = np.array(labels, dtype=object)
    names, counts = np.unique(values[values != ""].astype(str), return_counts=True)
    ordered = names[np.argsort(-counts, kind="stable")].tolist()
    place = {name: number for number, name in enumerate(ordered)}
    return torch.tensor([place.get(label, -1) for label in labels], dtype=torch.int64), ordered
