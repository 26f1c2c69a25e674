"""A balanced subset of a manifest: the same number of images of each cluster, as far as it has them."""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64

from ssl_lightning.clustering import HierarchicalKMeans, balanced_sample, uniform_sample
from ssl_lightning.clustering.diagnostics import size_metrics
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.clustering.hierarchical import top_labels
from ssl_lightning.clustering.tree_sampling import Choice
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.subset_file import SubsetFile
from ssl_lightning.errors import UsageError

log = logging.getLogger(__name__)
Method = Literal["hierarchical", "flat", "uniform"]
NOT_SAMPLED, WITHOUT_FEATURES, LEFT_OUT = "not sampled", "without features", "left out before"
NO_CLUSTER = -1


@dataclass(frozen=True)
class Plan:
    """How a subset is sampled.

    Attributes:
        size: Images of the subset.
        method: "hierarchical" clusters, "flat" clusters, or "uniform" sampling.
        num_clusters: Clusters of the last level, or of the only one.
        clusterer: Its `levels` count for hierarchical clusters alone.
        choice: Which images of a cluster.
        seed: Of all random choices.
    """

    size: int
    method: Method
    num_clusters: int
    clusterer: HierarchicalKMeans
    choice: Choice
    seed: int


def curate(
    images: ManifestImages, features: FeatureFile, plan: Plan, allowed: Bool[np.ndarray, "N"] | None = None
) -> SubsetFile:
    """Sample a subset of the images of a manifest.

    Args:
        images: The images.
        features: Of these images.
        plan: How to sample.
        allowed: Which images may be sampled, such as those that `data dedup` keeps; None for all.

    Raises:
        DataError: If the features are of other images.
        UsageError: If there are fewer images than clusters.
    """
    images.reject_other_features(features)
    every = np.ones(len(images), dtype=bool) if allowed is None else allowed
    rows = features.rows.numpy()
    taken = every[rows]
    rows = rows[taken]
    if plan.size < 1:
        raise UsageError(f"found a subset of {plan.size} images; expected at least 1: give --size")
    if plan.size > len(rows):
        log.warning("found %d images for a subset of %d: all are kept", len(rows), plan.size)
    groups = np.full(len(images), NO_CLUSTER, dtype=np.int64)
    if plan.method == "uniform":
        sampled = uniform_sample(len(rows), plan.size, plan.seed)
    else:
        tree = plan.clusterer.tree(features.features[torch.from_numpy(taken)].float(), plan.num_clusters, plan.seed)
        groups[rows] = top_labels(tree).numpy()
        sampled = balanced_sample(tree, plan.size, plan.seed, plan.choice)
    kept = np.zeros(len(images), dtype=bool)
    kept[rows[sampled.numpy()]] = True
    return SubsetFile(images.sample_ids.numpy(), kept, groups, _reasons(kept, every, features.rows.numpy()))


def _reasons(kept: Bool[np.ndarray, "N"], allowed: Bool[np.ndarray, "N"], rows: Int64[np.ndarray, "n"]) -> list[str]:
    embedded = np.zeros(len(kept), dtype=bool)
    embedded[rows] = True
    reasons = np.where(~embedded, WITHOUT_FEATURES, NOT_SAMPLED)
    reasons = np.where(~allowed, LEFT_OUT, reasons)
    return np.where(kept, "", reasons).tolist()


def in_words(found: SubsetFile, num_clusters: int) -> list[str]:
    """Counts of the subset, and of its clusters before and after."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.counts().items()))
    lines = [f"{len(found.ids):,} images, {int(found.kept.sum()):,} kept: {counts or 'all'}"]
    clustered = found.groups >= 0
    if clustered.any():
        before = np.bincount(found.groups[clustered], minlength=num_clusters)
        after = np.bincount(found.groups[found.kept], minlength=num_clusters)
        lines.append(
            f"{num_clusters:,} clusters of {before.min():,} to {before.max():,} images, {after.min():,} to "
            f"{after.max():,} of each kept; entropy of their shares {_entropy(before):.2f}, {_entropy(after):.2f} after"
        )
    return lines


def _entropy(counts: Int64[np.ndarray, "K"]) -> float:
    """Entropy of the shares of clusters, as a fraction of that of equal ones."""
    return size_metrics(torch.from_numpy(counts))["entropy"]
