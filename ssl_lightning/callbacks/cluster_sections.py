"""The clusters of a run as sections of its page, from its files: sizes, contact sheets, clusters over time."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.diagnostics import cluster_metrics
from ssl_lightning.clustering.history import NONE, ClusterHistory
from ssl_lightning.clustering.saved import cluster_files
from ssl_lightning.errors import DataError
from ssl_lightning.report.cluster_sheets import ReadsImages, draw_cluster_sheets
from ssl_lightning.report.contact_sheet import representatives
from ssl_lightning.report.followed import COLUMNS, draw_followed, draw_history
from ssl_lightning.report.page import Figure, Section
from ssl_lightning.types import label_counts

log = logging.getLogger(__name__)
FOLLOWED = 4
"""Clusters that are shown through the epochs."""
TIMES = 8
"""Clusterings at which they are shown, evenly spaced."""
SOURCES = {
    "pseudo-labels": "The clusters are the pseudo-labels that the method learned from last.",
    "file": "The clusters are those of an earlier stage that the method learns from.",
    "prototypes": "The cluster of an image is its nearest prototype.",
    "memory-bank": "The clusters are those of k-means on the memory bank; the method does not learn from them.",
    "features": "The clusters are those of k-means on the features; the method does not learn from them.",
}
_OVER_TIME = (
    "Clusters of consecutive clusterings are matched so that most images stay. Churn is the share of images that leave "
    "their cluster for another one than its match. A cluster dies, or is born, where it and its match have less than a "
    "tenth of their images in common."
)
_FOLLOWED = (
    "Each sheet is one cluster, with a line for each clustering: the images nearest to its center. A line is empty "
    "where there is no such cluster."
)
Saved = tuple[Clustering, dict[str, str]]


def saved_clusters(run: Path) -> list[Saved]:
    """The saved clusterings of a run of the kind of the newest one, the earliest first; damaged files are left out."""
    found = []
    for path in cluster_files(run):
        try:
            found.append(Clustering.load(path))
        except DataError as error:
            log.warning("%s", error)
    if not found:
        return []
    clustering, metadata = found[-1]
    kind = (metadata.get("source"), metadata.get("data"), len(clustering.sizes))
    return [(each, facts) for each, facts in found if (facts.get("source"), facts.get("data"), len(each.sizes)) == kind]


def cluster_sections(
    folder: Path,
    saved: Sequence[Saved],
    labels: Int[Tensor, "N H"] | None,
    num_clusters: int,
    images: ReadsImages,
    own: Int[Tensor, "N"],
) -> list[Section]:
    """Sizes and metrics, contact sheets, and clusters over time.

    Args:
        folder: Of the page.
        saved: From `saved_clusters`.
        labels: Pseudo-labels of all heads; None for those of the newest file.
        num_clusters: K of the pseudo-labels.
        images: The training images.
        own: Class of each image, -1 for none.
    """
    if labels is None and not saved:
        return []
    newest, facts = saved[-1] if saved else (None, {})
    if labels is None:
        assert newest is not None
        labels, num_clusters = newest.labels.long().unsqueeze(1), len(newest.sizes)
    sizes = [label_counts(column, num_clusters) for column in labels.T]
    heads = [cluster_metrics(n, c, true_labels=own) for n, c in zip(sizes, labels.T, strict=True)]
    of_newest = newest is not None and torch.equal(newest.labels.long(), labels[:, 0])
    distances = newest.distances if newest is not None and of_newest else None
    note = SOURCES.get(facts.get("source", ""), "") if of_newest else ""
    sheets = draw_cluster_sheets(folder, labels[:, 0], num_clusters, images, own, distances, note=note)
    if "nmi_labels" in heads[0]:
        sheets = replace(sheets, text=f"{sheets.text}; NMI to the classes {heads[0]['nmi_labels']:.3f}")
    over_time = _over_time(folder, saved, images) if len(saved) > 1 else []
    return [Section("Sizes of the last clusters", _numbers(heads), _draw_sizes(folder, sizes)), *over_time, sheets]


def _over_time(folder: Path, saved: Sequence[Saved], images: ReadsImages) -> list[Section]:
    """Sizes, churn, births and deaths, and a few clusters followed through the epochs."""
    clusterings = [clustering for clustering, _ in saved]
    epochs = _epochs([facts for _, facts in saved])
    history = ClusterHistory([clustering.labels for clustering in clusterings], len(clusterings[0].sizes))
    steps = history.transitions
    churn, births, deaths = zip(*((each.churn, len(each.births), len(each.deaths)) for each in steps), strict=True)
    written = draw_history(folder / "clusters-over-time.png", epochs, history.sizes, churn, births, deaths)
    figures = [Figure("clusters-over-time.png", "from the files of clusters of the run")] if written else []
    table = [("from epoch", "to epoch", "churn, %", "births", "deaths")]
    for (earlier, later), share, born, dead in zip(pairwise(epochs), churn, births, deaths, strict=True):
        table.append((f"{earlier:g}", f"{later:g}", f"{100 * share:.1f}", str(born), str(dead)))
    followed = [
        _followed(folder / f"followed-{number}.png", history.follow(cluster), saved, epochs, images)
        for number, cluster in enumerate(_to_follow(history), start=1)
    ]
    sheets = [figure for figure in followed if figure is not None]
    return [
        Section("Clusters over time", figures=figures, note=_OVER_TIME, table=table),
        Section("Clusters followed over time", figures=sheets, note=_FOLLOWED),
    ]


def _to_follow(history: ClusterHistory) -> list[int]:
    """Ids in the last clustering, evenly spaced by size, of the clusters that exist for the longest time."""
    last = history.sizes[-1]
    lives = {
        cluster: sum(each != NONE for each in history.follow(cluster)) for cluster in last.nonzero().flatten().tolist()
    }
    longest = max(lives.values(), default=0)
    chosen = sorted((cluster for cluster, life in lives.items() if life == longest), key=lambda k: (-int(last[k]), k))
    spread = torch.linspace(0, len(chosen) - 1, min(FOLLOWED, len(chosen)), dtype=torch.float64).round().long()
    return [chosen[place] for place in spread.tolist()]


def _followed(
    path: Path, ids: Sequence[int], saved: Sequence[Saved], epochs: Sequence[float], images: ReadsImages
) -> Figure | None:
    times = torch.linspace(0, len(ids) - 1, min(TIMES, len(ids)), dtype=torch.float64).round().long().tolist()
    lines = [_nearest(saved[time][0], ids[time]) for time in times]
    if not draw_followed(path, lines, images):
        return None
    shown = ", ".join(f"{epochs[t]:g}" for t in times)
    sizes = ", ".join(str(int(saved[t][0].sizes[ids[t]])) if ids[t] != NONE else "none" for t in times)
    return Figure(path.name, f"cluster {ids[-1]} of the last clustering at epochs {shown}: {sizes} images")


def _nearest(clustering: Clustering, cluster: int) -> Int[Tensor, "n"]:
    """The exemplary images of a cluster, or evenly spaced ones without distances."""
    members = representatives(clustering.labels, clustering.distances, cluster, len(clustering.labels))
    if bool(clustering.distances[members].isnan().any()):
        return representatives(clustering.labels, None, cluster, COLUMNS)
    return members[:COLUMNS]


def _epochs(facts: Sequence[dict[str, str]]) -> list[float]:
    """The epoch of each clustering; the step where there are several in an epoch."""
    epochs = [float(each.get("epoch", 0)) for each in facts]
    return epochs if len(set(epochs)) == len(epochs) else [float(each.get("step", 0)) for each in facts]


def _draw_sizes(folder: Path, sizes: list[Int[Tensor, "K"]]) -> list[Figure]:
    """An image for each clustering."""
    try:
        from ssl_lightning.report.clusters import draw_cluster_sizes  # needs matplotlib
    except ImportError:
        log.info("found no matplotlib: the report has no figures of the cluster sizes")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    for head, counts in enumerate(sizes):
        name = f"sizes-{head}.png"
        draw_cluster_sizes(counts).savefig(folder / name, dpi=110)
        figures.append(Figure(name, f"clustering {head}" if len(sizes) > 1 else "the largest first"))
    return figures


def _numbers(heads: list[dict[str, float]]) -> str:
    """A line for each metric, a column for each clustering."""
    columns = {"clustering": range(len(heads))} if len(heads) > 1 else {}
    columns |= {name: [f"{head[name]:.4g}" for head in heads] for name in heads[0]}
    return "\n".join(f"{name:<14}" + "".join(f"{value:>10}" for value in values) for name, values in columns.items())
