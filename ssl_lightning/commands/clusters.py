"""clusters: an HTML page with images of each cluster."""

from pathlib import Path
from typing import Any

from ssl_lightning.callbacks.cluster_sections import SOURCES
from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.diagnostics import cluster_metrics, purity
from ssl_lightning.clustering.saved import clusters_of
from ssl_lightning.commands.stage_images import images_of
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.files import reject_unwritable
from ssl_lightning.progress import progress
from ssl_lightning.report.cluster_sheets import CLUSTERS, IMAGES, draw_cluster_sheets
from ssl_lightning.report.page import Figure, Section, write_page
from ssl_lightning.types import UNLABELLED


def main(
    file: str, out: str | None = None, data: str | None = None, images: int = IMAGES, most: int = CLUSTERS
) -> None:
    """Write a page with contact sheets, sizes and metrics of clusters.

    Args:
        file: A file of clusters, <path>.safetensors; or the folder or a checkpoint of a run, for its newest clusters.
        out: Folder of the page; by default <path>-page.
        data: A configuration with a data section, a file or a name, if the images have moved since.
        images: Images per cluster; half of them are nearest to the centroid, half farthest from it.
        most: Clusters on the page; of more, the largest and the smallest half.

    Raises:
        DataError: If there is no file, it is damaged, or the data are not those that it was made for.
        UsageError: If `out` cannot be written, or there is nothing to show.
    """
    if images < 1 or most < 1:
        raise UsageError(f"found images={images}, most={most}; expected at least 1 of each")
    file = str(clusters_of(file))
    clustering, metadata = Clustering.load(file)
    source = images_of(metadata, file, data)
    source.setup("predict")
    if metadata.get("data") != source.fingerprint_as(metadata.get("data")):
        raise DataError(
            f"found {file} made for images {metadata.get('data', '')[:12]}, the data are {source.fingerprint[:12]}; "
            "give --data with those that it was made for"
        )
    folder = Path(out) if out else Path(file).with_name(f"{Path(file).stem}-page")
    reject_unwritable(folder / "index.html", "give --out")
    own = source.labels
    sheets = draw_cluster_sheets(
        folder,
        clustering.labels,
        len(clustering.sizes),
        source.training,
        own,
        clustering.distances,
        images,
        most,
        lambda shown: progress(shown, "cluster images", "clusters"),
        SOURCES.get(metadata.get("source", ""), ""),
    )
    write_page(folder / "index.html", Path(file).name, [_numbers(clustering, own, folder), sheets])
    print(f"{sheets.text}\nimages of them: {folder / 'index.html'}")


def _numbers(clustering: Clustering, own: Any, folder: Path) -> Section:
    """Sizes, the objective if the file has one and, with classes, agreement and purity."""
    metrics = cluster_metrics(clustering.sizes, clustering.labels, true_labels=own, objective=clustering.objective)
    text = "\n".join(f"{name:<14} {value:.4g}" for name, value in metrics.items())
    return Section("Sizes and agreement", text, _figures(clustering, own, folder))


def _figures(clustering: Clustering, own: Any, folder: Path) -> list[Figure]:
    from ssl_lightning.report.clusters import draw_cluster_sizes, draw_purity  # matplotlib, slow to import

    figures = {"sizes.png": draw_cluster_sizes(clustering.sizes)}
    known = (own != UNLABELLED) & (clustering.labels != UNLABELLED)
    if bool(known.any()):
        k = len(clustering.sizes)
        commonest = float(own[known].bincount().max() / known.sum())
        sizes = clustering.labels[known].bincount(minlength=k)
        figures["purity.png"] = draw_purity(purity(clustering.labels, own, k), sizes, commonest)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=110)
    return [Figure(name, name.removesuffix(".png")) for name in figures]
