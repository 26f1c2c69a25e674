"""Clusters of the training images of a run, whatever the method."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.callbacks.cluster_sources import EMBEDDINGS, default_count, prototypes_of
from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.diagnostics import cluster_metrics, distances_to_means, purity
from ssl_lightning.clustering.history import ClusterHistory
from ssl_lightning.clustering.kmeans import KMeans
from ssl_lightning.clustering.nearest_prototype import nearest_prototypes
from ssl_lightning.clustering.saved import cluster_files, step_of
from ssl_lightning.errors import DataError, UsageError
from ssl_lightning.inspect.embedded import MOST_IMAGES, Features, features
from ssl_lightning.inspect.run import OPTION, Run
from ssl_lightning.inspect.tables import table
from ssl_lightning.models.heads import Prototypes
from ssl_lightning.types import UNLABELLED, label_counts


@dataclass(frozen=True, eq=False)
class Clusters:
    """The cluster of each training image.

    Attributes:
        labels: Cluster of each row, -1 for none.
        distances: Distance of each row to its centroid, NaN where it is unknown.
        count: K, including empty clusters.
        source: "pseudo-labels", "file" (labels of an earlier stage), "prototypes", "memory-bank" or "features".
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
        return label_counts(self.labels, self.count)

    def __str__(self) -> str:
        """Number of images and clusters, and where they come from."""
        used, clustered = int((self.sizes > 0).sum()), int(self.sizes.sum())
        without = len(self.labels) - clustered
        source = f"(source: {self.source}, step {self.step:,})"
        text = f"{clustered:,} images in {used:,} of {self.count:,} clusters {source}"
        return f"{text}; {without:,} images in none" if without else text


def saved_clusters(run: Run) -> dict[int, Path]:
    """The files of clusters that the run has saved, by step."""
    return {} if run.path is None else {step_of(path): path for path in cluster_files(run.path)}


def clusters(
    run: Run,
    step: int | None = None,
    num_clusters: int | None = None,
    file: str | Path | None = None,
    max_images: int = MOST_IMAGES,
) -> Clusters:
    """Clusters of a run of any method.

    They are, in this order: the last clusters that the run has saved; the pseudo-labels in the checkpoint; the nearest
    prototype of each image; k-means of the features.

    Args:
        run: From `load_run`.
        step: One of `saved_clusters(run)`; None for the last.
        num_clusters: Cluster the features into as many, whatever the run has.
        file: A file of WriteClusters for the images of the run, in place of its own clusters.
        max_images: Images that are embedded where that is necessary; the others are in no cluster.

    Raises:
        UsageError: If the run has saved no clusters at this step.
        DataError: If the clusters are those of other images.
    """
    if file is not None:
        return _of_file(run, Path(file), run.step)
    if num_clusters is not None:
        return _of_features(run, num_clusters, max_images)
    saved = saved_clusters(run)
    if step is not None and step not in saved:
        known = ", ".join(map(str, saved)) or "none"
        raise UsageError(f"found step={step}; expected one of the steps with saved clusters: {known}")
    if saved:
        step = max(saved) if step is None else step
        return _of_file(run, saved[step], step)
    labels = getattr(run.method, "pseudo_labels", None)
    if labels is not None and not labels.is_empty:
        return _of_pseudo_labels(run, labels.rows[:, 0].long())
    prototypes = prototypes_of(run.method)
    if prototypes is not None:
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


def history_of(run: Run) -> tuple[list[int], ClusterHistory] | None:
    """The steps of the saved clusterings that can be compared with the last one, and their history; None below two.

    Args:
        run: From `load_run`.
    """
    found = [clusters(run, step) for step in saved_clusters(run)]
    alike = [each for each in found if (each.source, each.count) == (found[-1].source, found[-1].count)]
    if len(alike) < 2:
        return None
    return [each.step for each in alike], ClusterHistory([each.labels for each in alike], alike[-1].count)


def cluster_history(run: Run) -> Any:
    """A DataFrame with a row for each saved clustering of a run, the earliest first; empty for fewer than two.

    `churn` is the share of the images that leave their cluster: clusters of consecutive steps are matched one to one by
    their common images. `births` and `deaths` are clusters without a match, see `ClusterHistory`.

    Args:
        run: From `load_run`.
    """
    history = history_of(run)
    if history is None:
        return table([])
    steps, found = history
    rows: list[dict[str, float]] = []
    for place, step in enumerate(steps):
        sizes = found.sizes[place]
        rows.append({"step": step, "used": int((sizes > 0).sum()), "largest": int(sizes.max())})
        if place:
            each = found.transitions[place - 1]
            rows[-1] |= {"churn": each.churn, "births": len(each.births), "deaths": len(each.deaths)}
    return table(rows, "step")


def center_similarity(found: Clusters, of_images: Features, most: int = 24) -> Any:
    """A DataFrame of the cosine similarity of the mean features of the largest clusters, similar ones side by side.

    Args:
        found: From `clusters`.
        of_images: Features of some images.
        most: Number of clusters.
    """
    own = found.labels[of_images.rows]
    sizes = label_counts(own, found.count)
    largest = [cluster for cluster in sizes.argsort(descending=True, stable=True).tolist() if sizes[cluster]][:most]
    means = torch.stack([of_images.values[own == cluster].mean(0) for cluster in largest])
    similarity = F.normalize(means, dim=1) @ F.normalize(means, dim=1).T
    order = _side_by_side(similarity)
    names = [largest[place] for place in order]
    rows = similarity[order][:, order].tolist()
    named = (dict(zip(names, row, strict=True)) for row in rows)
    return table([{"cluster": name, **row} for name, row in zip(names, named, strict=True)], "cluster")


def _side_by_side(similarity: Float[Tensor, "K K"]) -> list[int]:
    """An order that begins with the first row; the next one is always the most similar one that is left."""
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


def _of_file(run: Run, path: Path, step: int) -> Clusters:
    clustering, metadata = Clustering.load(path)
    _reject_other_images(run, len(clustering.labels), metadata.get("data", ""), str(path))
    source = metadata.get("source", "file")
    return Clusters(clustering.labels.long(), clustering.distances, len(clustering.sizes), source, step)


def _of_pseudo_labels(run: Run, labels: Int[Tensor, "N"]) -> Clusters:
    _reject_other_images(run, len(labels), run.method.data_fingerprint, str(run.checkpoint))
    count = run.method.num_clusters or int(labels.max()) + 1
    return Clusters(labels, torch.full((len(labels),), torch.nan), count, "pseudo-labels", run.step)


def _of_prototypes(run: Run, prototypes: Prototypes, max_images: int) -> Clusters:
    """The nearest prototype of each image, by the cosine of its embedding."""
    embedded = features(run, EMBEDDINGS, max_images=max_images)
    return _scattered(run, embedded, nearest_prototypes(embedded.values, prototypes.weight), "prototypes")


def _of_features(run: Run, num_clusters: int | None, max_images: int) -> Clusters:
    """K-means of unit features of the default layer."""
    found = features(run, max_images=max_images)
    k = num_clusters or min(default_count(len(found.rows)), len(found.rows))
    clustering = KMeans(metric="cosine", init="k-means++")(found.values, k)
    return _scattered(run, found, clustering, "features")


def _scattered(run: Run, found: Features, clustering: Clustering, source: str) -> Clusters:
    """Clusters of some images as clusters of all."""
    total = run.data.num_samples
    labels, distances = torch.full((total,), UNLABELLED), torch.full((total,), torch.nan)
    labels[found.rows], distances[found.rows] = clustering.labels, clustering.distances
    return Clusters(labels, distances, len(clustering.sizes), source, run.step)


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
