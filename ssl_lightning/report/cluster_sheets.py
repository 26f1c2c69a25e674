"""Contact sheets of clusters, as a section of a page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.report.contact_sheet import contact_sheet, representatives, save_png
from ssl_lightning.report.page import Figure, Section
from ssl_lightning.types import UNLABELLED, label_counts

IMAGES = 20
"""Images per cluster."""
CLUSTERS = 100
"""Clusters per page: the largest and the smallest."""
NEAREST_FIRST = (
    "Of each cluster the first half of the images is nearest to its center (exemplary), the last half farthest "
    "from it (borderline)."
)


@runtime_checkable
class ReadsImages(Protocol):
    """A table of images that can be read by row."""

    classes: list[str]

    def read(self, rows: Int[Tensor, "n"]) -> tuple[Any, Any]:
        """Return the images of some rows, and which of them could be read."""
        ...


def draw_cluster_sheets(
    folder: Path,
    labels: Int[Tensor, "N"],
    num_clusters: int,
    dataset: ReadsImages,
    own: Int[Tensor, "N"],
    distances: Float[Tensor, "N"] | None = None,
    count: int = IMAGES,
    most: int = CLUSTERS,
    progress: Any = iter,
    note: str = "",
) -> Section:
    """Write `cluster-<id>.png` for each displayed cluster.

    Args:
        folder: Folder of the images.
        labels: Cluster of each row, -1 for none.
        num_clusters: K, including empty clusters.
        dataset: The table of images.
        own: Class of each image, -1 for none.
        distances: Distance of each row to its centroid; if given, half of the displayed images are the nearest ones,
            half the farthest.
        count: Images per cluster.
        most: Number of displayed clusters; of more, the largest and the smallest half.
        progress: Wraps the list of clusters, for a progress bar.
        note: Where the clusters come from.
    """
    sizes = label_counts(labels, num_clusters)
    shown = _shown(sizes, most)
    bar: Iterable[int] = progress(shown)
    figures = []
    for cluster in bar:
        images, valid = dataset.read(representatives(labels, distances, cluster, count))
        readable = [image for image, good in zip(images, valid, strict=True) if good]
        name = f"cluster-{cluster}.png"
        if readable:
            save_png(contact_sheet(readable), folder / name)
            figures.append(Figure(name, _caption(cluster, int(sizes[cluster]), own[labels == cluster], dataset)))
    used, clustered = int((sizes > 0).sum()), int(sizes.sum())
    others = f" ({len(labels) - clustered} of {len(labels)} are in none)" if clustered < len(labels) else ""
    text = f"{clustered} image{'' if clustered == 1 else 's'}{others} in {used} of {num_clusters} clusters"
    if len(shown) < used:
        half = len(shown) // 2
        text += f"; shown: the {half} largest and {half} smallest of {used}"
    order = "" if distances is None or bool(distances.isnan().all()) else NEAREST_FIRST
    return Section(
        "Clusters, largest first", text, figures, " ".join(sentence for sentence in (note, order) if sentence)
    )


def _caption(cluster: int, size: int, own: Int[Tensor, "n"], images: ReadsImages) -> str:
    caption, found = f"cluster {cluster}: {size} image{'s' * (size != 1)}", most_frequent_class(own, images.classes)
    return caption if found is None else f"{caption}, {100 * found[1]:.0f} % {found[0]}"


def most_frequent_class(own: Int[Tensor, "n"], classes: Sequence[str]) -> tuple[str, float] | None:
    """Name of the most frequent class, and its share of the labeled images; None without any.

    Args:
        own: Class of each image, -1 for none.
        classes: Names of the classes.
    """
    known = own[own != UNLABELLED]
    if not len(known):
        return None
    top = int(known.bincount().argmax())
    title = classes[top] if top < len(classes) else str(top)
    return title, float((known == top).double().mean())


def _shown(sizes: Int[Tensor, "K"], most: int) -> list[int]:
    """Non-empty clusters by size; of more than `most`, the largest and the smallest half."""
    order = [cluster for cluster in sizes.argsort(descending=True, stable=True).tolist() if sizes[cluster] > 0]
    half = max(1, most // 2)
    return order if len(order) <= most else order[:half] + order[-half:]
