"""WriteClusters: cluster once at the end of `predict`, and write the cluster of every image to a file."""

import logging
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.callbacks.cluster_files import write_cluster_files
from ssl_lightning.callbacks.cluster_sources import EMBEDDINGS, prototypes_of
from ssl_lightning.callbacks.publish import publish
from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.diagnostics import cluster_metrics
from ssl_lightning.clustering.nearest_prototype import nearest_prototypes
from ssl_lightning.clustering.whitening import FeatureTransform
from ssl_lightning.contracts import TrainingData, data_of
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.errors import UsageError
from ssl_lightning.files import reject_unwritable
from ssl_lightning.processes import rank, scatter_rows, world
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)


class WriteClusters(pl.Callback):
    """Write `<path>.safetensors` for the next stage and `<path>.parquet` for people.

    The first holds labels, distances, centroids, sizes and objective; its metadata hold the fingerprints of the data
    and of the checkpoint, and a description of the data. The second is a table of row, sample_id, path, cluster and
    distance; it needs pyarrow, and bytes of a path that are no text are escaped in it. An unreadable image has cluster
    -1. The safetensors file is written last, so it exists only when both do. The metrics of the clusters
    (`cluster/...`) are logged; `cluster/objective` among them is the file's last objective, a sum over rows, divided by
    the number of clustered rows.

    Args:
        path: Path of the files without their suffix.
        num_clusters: K.
        clusterer: The algorithm.
        transform: Applied to the features before.
        layer: Which of the method's layers to cluster; None for its default.
        batch_size: Batch size of the runs that learn from one cluster each, over all processes: clusters that do not
            fill a batch are logged. None where no such run follows.
        source: "prototypes" for the nearest prototype of each image, by the method's own prototypes (those of the first
            head) on its own layer: K is their number, and num_clusters, clusterer, transform and layer do not apply.

    Raises:
        UsageError: At the start of `predict`, for prototypes of a method without any.
    """

    def __init__(
        self,
        path: str,
        num_clusters: int,
        clusterer: Clusterer,
        transform: FeatureTransform | None = None,
        layer: str | None = None,
        batch_size: int | None = None,
        source: Literal["features", "prototypes"] = "features",
    ) -> None:
        self.source = source
        self.path, self.num_clusters, self.batch_size = path, num_clusters, batch_size
        self.clusterer, self.transform, self.layer = clusterer, transform, layer
        self.checkpoint = self.embedded_layer = ""
        self.data_config = ""
        """The configuration of the data as JSON, to find the images again; the command line sets it."""
        self._batches: list[tuple[Tensor, Tensor]] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the layer of the method, record the checkpoint, and check that the files can be written.

        Raises:
            UsageError: If they cannot be written, or the method has no prototypes, before the pass over the images.
        """
        if self.source == "prototypes":
            self._use_prototypes(pl_module)
        if trainer.is_global_zero:
            for path in self._files:
                reject_unwritable(path, "give another --trainer.callbacks.path")
        pl_module.predict_layer = self.layer  # type: ignore[assignment]  # an attribute of Method
        self.checkpoint = getattr(pl_module, "fingerprint", "")
        self.embedded_layer = self.layer or next(iter(getattr(pl_module, "layers", ("",))))
        self._batches = []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep one batch of features."""
        self._batches.append((outputs["index"], outputs["features"].float()))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cluster all features and write both files.

        Raises:
            DataError: For more unreadable images than the data allow.
        """
        data = data_of(trainer)
        group = world()
        with torch.inference_mode(False), torch.no_grad():
            rows = torch.cat([index.clone() for index, _ in self._batches])
            is_read = scatter_rows(torch.ones_like(rows, dtype=torch.bool), rows, data.num_samples, group)
            data.note_unreadable((~is_read).nonzero().flatten().tolist())
            features = torch.cat([features.clone() for _, features in self._batches])
            clustering = self._cluster(pl_module, features, number(data.seed, Purpose.CLUSTERING))
            labels = scatter_rows(clustering.labels, rows, data.num_samples, group, UNLABELLED).cpu()
            distances = scatter_rows(clustering.distances, rows, data.num_samples, group, torch.nan).cpu()
        self._batches = []
        if trainer.is_global_zero:
            whole = Clustering(
                labels, distances, clustering.centroids.cpu(), clustering.sizes.cpu(), clustering.objective
            )
            metrics = cluster_metrics(whole.sizes, whole.labels, true_labels=data.labels, objective=whole.objective)
            publish(trainer, {f"cluster/{name}": value for name, value in metrics.items()})
            self._write(whole, data, metrics.get("objective"))

    def _use_prototypes(self, module: pl.LightningModule) -> None:
        prototypes = prototypes_of(module)
        if prototypes is None:
            raise UsageError(
                f"found --trainer.callbacks.source prototypes with {type(module).__name__}, which has none; expected "
                "SwAV or DeepClusterV2: take --trainer.callbacks.source features"
            )
        self.num_clusters, self.transform, self.layer = len(prototypes.weight), None, EMBEDDINGS
        if rank() == 0:
            log.info(
                f"clusters by the nearest of {self.num_clusters} prototypes; num_clusters and clusterer do not apply"
            )

    def _cluster(self, module: pl.LightningModule, features: Float[Tensor, "n D"], seed: int) -> Clustering:
        group, prototypes = world(), prototypes_of(module) if self.source == "prototypes" else None
        if prototypes is not None:
            return nearest_prototypes(features, prototypes.weight, group)
        if self.transform is not None:
            features = self.transform(features, group)
        return self.clusterer(features, self.num_clusters, seed, group)

    @property
    def _files(self) -> tuple[Path, Path]:
        """The file for the next stage, and the table for people."""
        path = Path(self.path)
        return path.with_name(f"{path.name}.safetensors"), path.with_name(f"{path.name}.parquet")

    def _write(self, clustering: Clustering, data: TrainingData, objective: float | None) -> None:
        stage_file, _ = self._files
        write_cluster_files(Path(self.path), clustering, data, self._metadata(data))
        used, clustered = int((clustering.sizes > 0).sum()), int((clustering.labels != UNLABELLED).sum())
        unreadable = len(clustering.labels) - clustered
        log.info(
            "wrote %s and .parquet: %d images%s in %d of %d clusters%s",
            stage_file,
            clustered,
            f" ({unreadable} of {len(clustering.labels)} cannot be read, cluster -1)" if unreadable else "",
            used,
            self.num_clusters,
            "" if objective is None else f", objective {objective:.4g} an image",
        )
        self._warn_of_small_clusters(clustering.sizes.tolist())

    def _warn_of_small_clusters(self, sizes: list[int]) -> None:
        """Warn of clusters that a run would reject."""
        small = [f"{k} ({size})" for k, size in enumerate(sizes) if size < (self.batch_size or 0)]
        if small:
            log.warning(
                "found clusters of fewer images than a batch of %d: %s; give the runs on them a lower "
                "--data.batch_size, or make fewer clusters with --trainer.callbacks.num_clusters",
                self.batch_size,
                ", ".join(small),
            )

    def _metadata(self, data: TrainingData) -> dict[str, str]:
        # to assign further images; no metric where the cluster is not that of the nearest centroid
        nearest = self.transform is None and self.clusterer.labels_are_nearest
        metric = getattr(self.clusterer, "metric", "") if nearest else ""
        metric = "cosine" if self.source == "prototypes" else metric
        found_by = {"layer": self.embedded_layer, "metric": metric, "source": self.source}
        return {"data": data.fingerprint, "checkpoint": self.checkpoint, "data_config": self.data_config} | found_by
