"""A clusterer: mini-batch k-means of scikit-learn."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.distributed import ProcessGroup

from ssl_lightning.clustering import Clusterer, Clustering


@dataclass(frozen=True)
class MiniBatch(Clusterer):
    """Mini-batch k-means, on one process.

    Args:
        batch_size: Rows of a mini-batch.
    """

    batch_size: int = 1024

    def __call__(
        self, features: Float[Tensor, "N D"], k: int, seed: int = 0, group: ProcessGroup | None = None
    ) -> Clustering:
        """See `Clusterer`.

        Raises:
            ValueError: With several processes.
        """
        if group is not None:
            raise ValueError("found several processes; expected one for MiniBatch: use KMeans")
        rows = features.float().cpu()
        fitted = MiniBatchKMeans(k, batch_size=self.batch_size, random_state=seed % 2**32, n_init=1).fit(rows.numpy())
        labels = torch.from_numpy(fitted.labels_).long()
        centroids = torch.from_numpy(fitted.cluster_centers_).float()
        distances = (rows - centroids[labels]).square().sum(1)
        return Clustering(labels, distances, centroids, labels.bincount(minlength=k), [float(distances.sum())])
