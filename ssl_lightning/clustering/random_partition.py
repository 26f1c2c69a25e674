"""RandomPartition: random clusters of equal size, a control for methods that learn from clusters."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.kmeans import clustering_of, prepared_rows, sums_by_label
from ssl_lightning.clustering.rows import check
from ssl_lightning.counter_rng import Purpose, permutation


@dataclass(frozen=True)
class RandomPartition(Clusterer):
    """k random clusters with sizes that differ by at most one, independent of the features.

    The control "random partition" of Divide and Contrast (Tian et al. 2021, table 10: 73.1 % against 75.8 % with
    clusters and 74.3 % of the base). The cluster of a row is a function of the seed, N, k and the position of the row.

    Note:
        Unlike for other clusterers, a label is not that of the nearest centroid. Centroids are the means of the
        clusters, and distances and objective refer to them, so that they compare with those of `KMeans` of the same
        metric.

    Args:
        metric: "l2", or "cosine" (unit rows and unit centroids), as in `KMeans`.
    """

    labels_are_nearest: ClassVar[bool] = False
    metric: Literal["l2", "cosine"] = "l2"

    @torch.no_grad()
    def __call__(
        self, features: Float[Tensor, "N D"], k: int, seed: int = 0, group: ProcessGroup | None = None
    ) -> Clustering:
        """See `Clusterer`."""
        rows = prepared_rows(features, self.metric, group)
        check(rows, k)
        order = permutation(seed, Purpose.CLUSTERING, 0, rows.total)[rows.offset : rows.offset + len(rows.features)]
        labels = order.to(rows.features.device) % k
        sums = rows.sum(sums_by_label(rows.features, labels, k))
        sizes = rows.sum(labels.bincount(minlength=k)).unsqueeze(1)  # no cluster is empty, since k is at most N
        centroids = F.normalize(sums, dim=1) if self.metric == "cosine" else sums / sizes
        return clustering_of(rows, labels, centroids, self.metric, objective=[], repairs=0)
