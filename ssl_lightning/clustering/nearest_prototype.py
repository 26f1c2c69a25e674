"""Clusters of given prototypes: each row belongs to the nearest one."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroup

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.clustering.kmeans import final_clustering, prepared_rows


@torch.no_grad()
def nearest_prototypes(
    embeddings: Float[Tensor, "N D"], prototypes: Float[Tensor, "K D"], group: ProcessGroup | None = None
) -> Clustering:
    """The clustering of rows by cosine similarity to prototypes, which are its centroids.

    Args:
        embeddings: With `group`, the rows of this process.
        prototypes: Rows of unit length.
        group: None if `embeddings` are all rows.
    """
    centroids = prototypes.detach().to(embeddings.device, torch.float32)
    return final_clustering(prepared_rows(embeddings, "cosine", group), centroids, "cosine", [], 0)
