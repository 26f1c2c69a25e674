"""Agreement of the clusters and neighbors of a collection with labels, as a section of its page."""

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_lightning.clustering.diagnostics import cluster_metrics, purity
from ssl_lightning.commands.collection.layout import Layout
from ssl_lightning.report.collection_groups import labels_section
from ssl_lightning.report.page import Section

MOST = 40
"""Labels in the table."""


def agreement_section(layout: Layout, labels: Int[Tensor, "n"], names: Sequence[str], source: str) -> Section:
    """NMI, AMI and purity of the clusters, and labels of neighbors.

    Args:
        layout: Of the images.
        labels: Label of each image, -1 for none; one of them has one at least.
        names: Names of the labels.
        source: A sentence about where they come from.
    """
    clusters, count = layout.clustering.labels.long(), len(layout.clustering.sizes)
    metrics = cluster_metrics(layout.clustering.sizes, clusters, true_labels=labels)
    known = labels >= 0
    weights = clusters[known].bincount(minlength=count)
    overall = float((purity(clusters, labels, count).nan_to_num() * weights).sum() / weights.sum())
    counts = labels[known].bincount(minlength=len(names))
    shares = counts.double() / counts.sum()
    own = _share_of_neighbors(labels[layout.neighbors], labels)
    rows = [
        ("NMI", f"{metrics['nmi_labels']:.3f}", f"{metrics['nmi_chance']:.3f}"),
        ("AMI", f"{metrics['ami_labels']:.3f}", "0.000"),
        ("purity of clusters", _percent(overall), _percent(float(shares.max()))),
        (
            "neighbors with the same label",
            _percent(float(own[known].nanmean())),
            _percent(float(shares.square().sum())),
        ),
    ]
    order: list[int] = counts.argsort(descending=True, stable=True).tolist()
    agreement = []
    for label in order[:MOST]:
        is_own = labels == label
        together = _share_in_clusters(clusters, is_own, known, count)
        agreement.append((names[label], int(counts[label]), together, float(own[is_own].nanmean())))
    note = f"{source} {int(known.sum()):,} of {len(labels):,} images have one."
    return labels_section(note, [(names[label], int(counts[label])) for label in order], rows, agreement)


def _share_of_neighbors(near: Int[Tensor, "n m"], labels: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Share of the labeled neighbors of each image with its label; NaN without labeled ones."""
    known = near >= 0
    return ((near == labels.unsqueeze(1)) & known).sum(1) / known.sum(1)


def _share_in_clusters(
    clusters: Int[Tensor, "n"], is_own: Bool[Tensor, "n"], known: Bool[Tensor, "n"], count: int
) -> float:
    """Share of a label in the cluster of an image with this label, the mean over its images."""
    own, every = clusters[is_own].bincount(minlength=count), clusters[known].bincount(minlength=count)
    return float((own.square() / every.clamp(min=1)).sum() / own.sum().clamp(min=1))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
