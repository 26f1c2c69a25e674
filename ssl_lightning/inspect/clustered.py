"""Clusters of the training images of a run, whatever the method."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.clustering.assign import nearest
from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.diagnostics import (
    cluster_metrics,
    distances_to_means,
    normalized_mutual_info,
    purity,
    reassigned,
)
from ssl_lightning.clustering.kmeans import KMeans
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.inspect.embedded import MOST_IMAGES, Features, features
from ssl_lightning.inspect.run import OPTION, Run
from ssl_lightning.inspect.tables import table
from ssl_lightning.models.heads import Prototypes
from ssl_lightning.types import UNLABELLED

SAVED = "clusters"
"""Folder of a run with its clusterings, `step-<n>.safetensors`."""
FEWEST_IMAGES = 10
"""Images of a cluster on average, at least, for k-means of features."""
FEW_CLUSTERS = 30
"""Clusters of features without labels, and without clusters of the method."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """The cluster of each training image.

    Attributes:
        labels: Cluster of each row, -1 for none.
        distances: Distance of each row to its centroid, NaN where it is unknown.
        count: K, including empty clusters.
        source: How they were found.
        step: Optimizer steps at that time.
    """

    labels: Int[Tensor, "N"]
    distances: Float[Tensor, "N"]
    count: int
    source: str
    step: int

    @property
    def sizes(self) -> Int[Tensor, "K"]:
        """Images of each cluster."""
        return self.labels[self.labels != UNLABELLED].bincount(minlength=self.count)

    def __str__(self) -> str:
        """Number of images and clusters, and where they come from."""
        used, clustered = int((self.sizes > 0).sum()), int(self.sizes.sum())
        without = len(self.labels) - clustered
        text = f"{clustered:,} images in {used:,} of {self.count:,} clusters, {self.source}, step {self.step:,}"
        return f"{text}; {without:,} images in none" if without else text


def saved_clusters(run: Run) -> dict[int, Path]:
    """The files of clusters that the run has saved, by step."""
    folder = None if run.path is None else run.path / SAVED
    if folder is None or not folder.is_dir():
        return {}
    found = {path.stem.removeprefix("step-"): path for path in folder.glob("step-*.safetensors")}
    return {int(step): found[step] for step in sorted(found, key=lambda text: int(text) if text.isdigit() else -1)}


def clusters(
    run: Run, step: int | None = None, num_clusters: int | None = None, max_images: int = MOST_IMAGES
) -> Clusters:
    """Clusters of a run of any method.

    They are, in this order: the last clusters that the run has saved; the pseudo-labels in the checkpoint; the nearest
    prototype of each image; k-means of the features.

    Args:
        run: From `load_run`.
        step: One of `saved_clusters(run)`; None for the last.
        num_clusters: Cluster the features into as many, whatever the run has.
        max_images: Images that are embedded where that is necessary; the others are in no cluster.

    Raises:
        UsageError: If the run has saved no clusters at this step.
        DataError: If the clusters are those of other images.
    """
    if num_clusters is not None:
        return _of_features(run, num_clusters, max_images)
    saved = saved_clusters(run)
    if step is not None and step not in saved:
        known = ", ".join(map(str, saved)) or "none"
        raise UsageError(f"found step={step}; expected one of the steps with saved clusters: {known}")
    if saved:
        return _of_file(run, saved[max(saved) if step is None else step])
    labels = getattr(run.method, "pseudo_labels", None)
    if labels is not None and not labels.is_empty:
        return _of_pseudo_labels(run, labels.rows[:, 0].long())
    prototypes = getattr(run.method, "prototypes", None)
    if isinstance(prototypes, Prototypes):
        return _of_prototypes(run, prototypes, max_images)
    return _of_features(run, None, max_images)


def cluster_table(run: Run, found: Clusters) -> Any:
    """A DataFrame with a row for each cluster, the largest first: size, purity and most frequent class.

    Args:
        run: From `load_run`.
        found: From `clusters`.
    """
    own, sizes = run.data.labels, found.sizes
    shares, names = purity(found.labels, own, found.count), run.data.training.classes
    rows = []
    for cluster in sizes.argsort(descending=True, stable=True).tolist():
        members = own[(found.labels == cluster) & (own != UNLABELLED)]
        top = int(members.bincount().argmax()) if len(members) else -1
        title = names[top] if 0 <= top < len(names) else ""
        rows.append({"cluster": cluster, "size": int(sizes[cluster]), "purity": float(shares[cluster]), "class": title})
    return table(rows, "cluster")


def cluster_numbers(run: Run, found: Clusters) -> dict[str, float]:
    """Balance of the sizes and, with labels, agreement with the classes: the metrics `cluster/...` of a run.

    Args:
        run: From `load_run`.
        found: From `clusters`.
    """
    own = run.data.labels if run.has_labels else None
    return cluster_metrics(found.sizes, found.labels, true_labels=own)


def cluster_history(run: Run) -> Any:
    """A DataFrame with a row for each saved clustering of a run, the earliest first.

    `churn` is the share of the images that leave their cluster: clusters of the previous saved step are matched one to
    one by their common images. `nmi_previous` is the normalized mutual information of both.

    Args:
        run: From `load_run`.
    """
    rows, previous = [], None
    for step in saved_clusters(run):
        found = clusters(run, step)
        row = {"step": step, "used": int((found.sizes > 0).sum()), "largest": int(found.sizes.max())}
        if previous is not None:
            labels = (previous.labels, found.labels)
            row |= {"churn": reassigned(*labels), "nmi_previous": normalized_mutual_info(*labels)}
        rows.append(row)
        previous = found
    return table(rows, "step")


def center_similarity(found: Clusters, of_images: Features, most: int = 24) -> Any:
    """A DataFrame of the cosine similarity of the mean features of the largest clusters, similar ones side by side.

    Args:
        found: From `clusters`.
        of_images: Features of some images.
        most: Number of clusters.
    """
    own = found.labels[of_images.rows]
    sizes = own[own != UNLABELLED].bincount(minlength=found.count)
    largest = [cluster for cluster in sizes.argsort(descending=True, stable=True).tolist() if sizes[cluster]][:most]
    means = torch.stack([of_images.values[own == cluster].mean(0) for cluster in largest])
    similarity = F.normalize(means, dim=1) @ F.normalize(means, dim=1).T
    order = _side_by_side(similarity)
    names = [largest[place] for place in order]
    rows = similarity[order][:, order].tolist()
    named = (dict(zip(names, row, strict=True)) for row in rows)
    return table([{"cluster": name, **row} for name, row in zip(names, named, strict=True)], "cluster")


def _side_by_side(similarity: Float[Tensor, "K K"]) -> list[int]:
    """An order that begins with the first row and goes on with the most similar one that is left."""
    order, left = [0], set(range(1, len(similarity)))
    while left:
        last = similarity[order[-1]]
        order.append(max(left, key=lambda place, last=last: float(last[place])))
        left.remove(order[-1])
    return order


def with_distances(found: Clusters, of_images: Features) -> Clusters:
    """The clusters with distances; where the file has none, those of the features to the mean of their cluster.

    Args:
        found: From `clusters`.
        of_images: Features of some images.
    """
    if not bool(found.distances.isnan().all()):
        return found
    distances = torch.full((len(found.labels),), torch.nan)
    labels = found.labels[of_images.rows]
    distances[of_images.rows] = distances_to_means(of_images.values, labels, found.count)
    return Clusters(found.labels, distances, found.count, found.source, found.step)


def _of_file(run: Run, path: Path) -> Clusters:
    clustering, metadata = Clustering.load(path)
    _reject_other_images(run, len(clustering.labels), metadata.get("data", ""), str(path))
    source, step = metadata.get("source", "saved"), metadata.get("step", path.stem.removeprefix("step-"))
    return Clusters(clustering.labels.long(), clustering.distances, len(clustering.sizes), source, int(step))


def _of_pseudo_labels(run: Run, labels: Int[Tensor, "N"]) -> Clusters:
    _reject_other_images(run, len(labels), run.method.data_fingerprint, str(run.checkpoint))
    count = run.method.num_clusters or int(labels.max()) + 1
    return Clusters(labels, torch.full((len(labels),), torch.nan), count, "pseudo-labels", run.step)


def _of_prototypes(run: Run, prototypes: Prototypes, max_images: int) -> Clusters:
    """The nearest prototype of each image, by the cosine of its embedding."""
    embedded = features(run, "projector", max_images=max_images)
    centers = F.normalize(prototypes.weight.detach().float(), dim=1)
    unit = F.normalize(embedded.values, dim=1)
    labels = nearest(unit, centers, cosine=True)
    distances = 1 - (unit * centers[labels]).sum(1)
    return _scattered(run, embedded, labels, distances, len(centers), "nearest prototypes")


def _of_features(run: Run, num_clusters: int | None, max_images: int) -> Clusters:
    """K-means of unit features of the default layer."""
    found = features(run, max_images=max_images)
    most = max(1, len(found.rows) // FEWEST_IMAGES)
    usual = run.method.num_clusters or run.data.num_classes or FEW_CLUSTERS
    k = min(usual, most) if num_clusters is None else num_clusters
    clustering = KMeans(metric="cosine")(F.normalize(found.values, dim=1), k)
    return _scattered(run, found, clustering.labels, clustering.distances, k, "k-means of features")


def _scattered(
    run: Run, found: Features, labels: Int[Tensor, "n"], distances: Float[Tensor, "n"], count: int, source: str
) -> Clusters:
    """Clusters of some images as clusters of all."""
    total = run.data.num_samples
    all_labels, all_distances = torch.full((total,), UNLABELLED), torch.full((total,), torch.nan)
    all_labels[found.rows], all_distances[found.rows] = labels, distances
    return Clusters(all_labels, all_distances, count, source, run.step)


def _reject_other_images(run: Run, count: int, fingerprint: str, source: str) -> None:
    """Reject clusters of other images than those of the data: their rows mean nothing."""
    own = run.data.fingerprint_as(fingerprint) if fingerprint else ""
    if count == run.data.num_samples and own == fingerprint:
        return
    data = f"{run.data.num_samples} images ({run.data.fingerprint[:12]})"
    raise DataError(
        f"found {data} and clusters of {count} ({fingerprint[:12]}) in {source}; expected the images of the run: give "
        f"them with {OPTION}"
    )
