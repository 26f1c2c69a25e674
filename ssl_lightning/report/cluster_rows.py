"""Rows of a table of clusters: size, purity, and an image with exemplary and borderline members of each cluster."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.report.cluster_sheets import ReadsImages, most_frequent_class
from ssl_lightning.report.contact_sheet import contact_sheet, representatives, save_png
from ssl_lightning.types import label_counts

COLUMNS = ("cluster", "size", "purity", "most frequent class", "images")
MOST_ROWS = 50
EACH = 8
"""Exemplary images of a cluster, and as many borderline ones."""


@dataclass(frozen=True)
class ClusterRow:
    """One cluster.

    Attributes:
        cluster: Its id.
        size: Number of its images.
        purity: Share of its most frequent class among its labeled images; None without labels.
        label: The most frequent class; empty without labels.
        sheet: The image; None where no member can be read.
    """

    cluster: int
    size: int
    purity: float | None
    label: str
    sheet: Path | None

    def cells(self) -> tuple[int, int, float | None, str, Path | None]:
        """The cells of `COLUMNS`."""
        return self.cluster, self.size, self.purity, self.label, self.sheet


def cluster_rows(
    folder: Path,
    labels: Int[Tensor, "N"],
    dataset: ReadsImages,
    own: Int[Tensor, "N"],
    distances: Float[Tensor, "N"] | None = None,
    most: int = MOST_ROWS,
) -> list[ClusterRow]:
    """The largest clusters, and `cluster-<id>.png` for each.

    Args:
        folder: Folder of the images.
        labels: Cluster of each row, -1 for none.
        dataset: The table of images.
        own: Class of each image, -1 for none.
        distances: Distance of each row to its centroid. With it the first row of an image shows the nearest members,
            the second the farthest; without it the members are evenly spaced over the table.
        most: Largest number of clusters.
    """
    sizes = label_counts(labels)
    order = [cluster for cluster in sizes.argsort(descending=True, stable=True).tolist() if sizes[cluster]][:most]
    return [_row(folder, cluster, labels, dataset, own, distances) for cluster in order]


def _row(
    folder: Path,
    cluster: int,
    labels: Int[Tensor, "N"],
    dataset: ReadsImages,
    own: Int[Tensor, "N"],
    distances: Float[Tensor, "N"] | None,
) -> ClusterRow:
    members = (labels == cluster).nonzero().squeeze(1)
    images, valid = dataset.read(representatives(labels, distances, cluster, 2 * EACH))
    readable = [image for image, good in zip(images, valid, strict=True) if good]
    sheet = folder / f"cluster-{cluster}.png" if readable else None
    if sheet is not None:
        save_png(contact_sheet(readable, columns=EACH), sheet)
    label, purity = most_frequent_class(own[members], dataset.classes) or ("", None)
    return ClusterRow(cluster, len(members), purity, label, sheet)
