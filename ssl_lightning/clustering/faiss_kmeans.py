"""FaissKMeans: the same contract by faiss, one line of YAML away."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.distributed import ProcessGroup

from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.kmeans import final_clustering, prepared_rows, sampled_rows, start
from ssl_lightning.clustering.rows import ShardedRows, check
from ssl_lightning.errors import UsageError


@dataclass(frozen=True)
class FaissKMeans(Clusterer):
    """k-means by faiss, on the CPU; with a process group the rows go to rank 0 and the centroids come back.

    faiss would draw 256 rows a centroid without saying so; here all rows count unless `max_points` is given. It fills
    empty clusters itself. Labels are by nearest returned centroid, as for `KMeans`.

    Args:
        metric: "l2", or "cosine" (spherical).
        init: "random" rows or greedy "k-means++", drawn as `KMeans` draws them.
        iterations: At the most.
        empty: "split" only.
        max_points: Fit on so many rows drawn at random, then label all; None for all rows.
    """

    metric: Literal["l2", "cosine"] = "l2"
    init: Literal["random", "k-means++"] = "random"
    iterations: int = 20
    empty: Literal["split", "keep"] = "split"
    max_points: int | None = None

    def __post_init__(self) -> None:
        if self.empty == "keep":
            raise UsageError('found FaissKMeans(empty="keep"); faiss always splits: use KMeans(empty="keep")')
        if self.iterations < 1 or (self.max_points is not None and self.max_points < 1):
            raise UsageError(
                f"found iterations={self.iterations}, max_points={self.max_points}; expected at least 1 of each"
            )

    @torch.no_grad()
    def __call__(
        self, features: Float[Tensor, "N D"], k: int, seed: int = 0, group: ProcessGroup | None = None
    ) -> Clustering:
        """See `Clusterer`."""
        rows = prepared_rows(features, self.metric, group)
        check(rows, k)
        fitted = sampled_rows(rows, self.max_points, k, seed)
        first = start(fitted, k, seed, self.init, self.metric)
        centroids, objective = self._fit(fitted, first)
        return final_clustering(rows, centroids, self.metric, objective, repairs=0)

    def _fit(self, rows: ShardedRows, first: Float[Tensor, "K D"]) -> tuple[Float[Tensor, "K D"], list[float]]:
        """Centroids and objectives, equal on every process."""
        if rows.group is None:
            return self._train(rows.features, first)
        gathered = _gather_to_first(rows)
        # faiss stops early where nothing improves: what it has not filled in stays NaN
        centroids = first.clone()
        objective = torch.full((self.iterations,), torch.nan, dtype=torch.float64, device=first.device)
        if rows.group.rank() == 0:
            centroids, values = self._train(gathered, first)
            objective[: len(values)] = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(centroids, group_src=0, group=rows.group)
        dist.broadcast(objective, group_src=0, group=rows.group)
        return centroids, objective[~objective.isnan()].tolist()

    def _train(
        self, features: Float[Tensor, "N D"], first: Float[Tensor, "K D"]
    ) -> tuple[Float[Tensor, "K D"], list[float]]:
        import faiss  # not on every machine that trains

        k, width = first.shape
        kmeans = faiss.Kmeans(
            width,
            k,
            niter=self.iterations,
            spherical=self.metric == "cosine",
            min_points_per_centroid=1,
            max_points_per_centroid=len(features),
        )
        kmeans.train(features.cpu().numpy(), init_centroids=first.cpu().numpy())
        assert kmeans.centroids is not None
        assert kmeans.obj is not None
        objective = [float(value) for value in kmeans.obj]
        if self.metric == "cosine":  # faiss maximizes the sum of products there
            objective = [len(features) - value for value in objective]
        return torch.from_numpy(kmeans.centroids.reshape(k, width).copy()).to(features.device), objective


def _gather_to_first(rows: ShardedRows) -> Float[Tensor, "N D"]:
    """All rows in order; needed on the first process only, but gathered everywhere for want of a ragged gather."""
    count = torch.tensor([len(rows.features)], device=rows.features.device)
    counts = rows.gather(count)
    padded = rows.features.new_zeros(int(counts.max()), rows.features.shape[1])
    padded[: len(rows.features)] = rows.features
    parts = rows.gather(padded).split(int(counts.max()))
    return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])
