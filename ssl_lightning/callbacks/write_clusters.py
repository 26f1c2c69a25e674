"""WriteClusters: cluster once at the end of `predict`, and say in a file where every image went."""

import logging
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.callbacks.publish import publish
from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.diagnostics import cluster_metrics
from ssl_lightning.clustering.list_file import write_list
from ssl_lightning.clustering.whitening import FeatureTransform
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.files import reject_unwritable
from ssl_lightning.processes import gather_rows, world
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)


@runtime_checkable
class NamesItsRows(Protocol):
    """What this callback needs of the data."""

    seed: int
    num_samples: int
    fingerprint: str

    def true_labels(self) -> Int[Tensor, "N"]:
        """The images' own classes, for diagnostics only."""
        ...

    @property
    def training(self) -> Any:
        """The table of images: `sample_ids` and `names`."""
        ...


class WriteClusters(pl.Callback):
    """Write `<path>.safetensors` for the next stage and `<path>.parquet` for people.

    The first holds labels, distances, centroids, sizes and objective, with the fingerprints of the data's order and of
    the checkpoint and a description of the data in its metadata; the second a table of row, sample_id, path, cluster
    and distance, which a machine without pyarrow goes without; bytes of a path that are no text are escaped in it. A
    image that could not be read has cluster -1. The safetensors file is written last, so it is there only when both
    are. The clusters' numbers (`cluster/...`) go to the metrics of the run; `cluster/objective` among them is the
    file's last objective, a sum over rows, divided by the clustered rows.

    Args:
        path: Where to, without an ending.
        num_clusters: K.
        clusterer: How.
        transform: What is done to the features before.
        layer: Which of the method's layers to cluster; None for its default.
        batch_size: Of the runs that are to learn from one cluster each, over all processes: those that would not fill
            a batch are named in the log. None where no such run follows.
    """

    def __init__(
        self,
        path: str,
        num_clusters: int,
        clusterer: Clusterer,
        transform: FeatureTransform | None = None,
        layer: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.path, self.num_clusters, self.batch_size = path, num_clusters, batch_size
        self.clusterer, self.transform, self.layer = clusterer, transform, layer
        self.checkpoint = self.embedded_layer = ""
        self.data_config = ""
        """How the data were described, as JSON, for whoever wants to see the images; the command line sets it."""
        self._seen: list[tuple[Tensor, Tensor]] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the method which layer; note which checkpoint; see that there is a place for the files.

        Raises:
            UsageError: If they cannot be written, which is known here before the pass over the images.
        """
        if trainer.is_global_zero:
            for path in self._files:
                reject_unwritable(path, "give another --trainer.callbacks.path")
        pl_module.predict_layer = self.layer  # type: ignore[assignment]  # an attribute of Method
        self.checkpoint = getattr(pl_module, "fingerprint", "")
        self.embedded_layer = self.layer or next(iter(getattr(pl_module, "layers", ("",))))
        self._seen = []

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
        self._seen.append((outputs["index"], outputs["features"].float()))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cluster all of them and write both files."""
        data = cast(NamesItsRows, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning
        group = world()
        with torch.inference_mode(False), torch.no_grad():
            rows = torch.cat([index.clone() for index, _ in self._seen])
            features = torch.cat([features.clone() for _, features in self._seen])
            if self.transform is not None:
                features = self.transform(features, group)
            clustering = self.clusterer(features, self.num_clusters, number(data.seed, Purpose.CLUSTERING), group)
            labels = _scatter(clustering.labels, rows, data.num_samples, UNLABELLED, group)
            distances = _scatter(clustering.distances, rows, data.num_samples, torch.nan, group)
        self._seen = []
        if trainer.is_global_zero:
            whole = Clustering(
                labels, distances, clustering.centroids.cpu(), clustering.sizes.cpu(), clustering.objective
            )
            metrics = cluster_metrics(
                whole.sizes, whole.labels, true_labels=data.true_labels(), objective=whole.objective
            )
            publish(trainer, {f"cluster/{name}": value for name, value in metrics.items()})
            self._write(whole, data, metrics.get("objective"))

    @property
    def _files(self) -> tuple[Path, Path]:
        """For the next stage, and for people."""
        path = Path(self.path)
        return path.with_name(f"{path.name}.safetensors"), path.with_name(f"{path.name}.parquet")

    def _write(self, clustering: Clustering, data: NamesItsRows, objective: float | None) -> None:
        edge, table = self._files
        edge.parent.mkdir(parents=True, exist_ok=True)  # it was there before the pass, which may take hours
        _write_table(table, clustering, data)
        clustering.save(edge, self._metadata(data))
        used = int((clustering.sizes > 0).sum())
        log.info(
            "wrote %s and .parquet: %d images in %d of %d clusters%s",
            edge,
            len(clustering.labels),
            used,
            self.num_clusters,
            "" if objective is None else f", objective {objective:.4g} an image",
        )
        self._name_small_parts(clustering.sizes.tolist())

    def _name_small_parts(self, sizes: list[int]) -> None:
        """Say now what the run on such a cluster would be rejected for."""
        small = [f"{k} ({size})" for k, size in enumerate(sizes) if size < (self.batch_size or 0)]
        if small:
            log.warning(
                "found clusters of fewer images than a batch of %d: %s; give the runs on them a lower "
                "--data.batch_size, or make fewer clusters with --trainer.callbacks.num_clusters",
                self.batch_size,
                ", ".join(small),
            )

    def _metadata(self, data: NamesItsRows) -> dict[str, str]:
        # how to find the cluster of an image that was not there; no metric where nearest centroids do not say
        nearest = self.transform is None and self.clusterer.labels_are_nearest
        metric = getattr(self.clusterer, "metric", "") if nearest else ""
        found_by = {"layer": self.embedded_layer, "metric": metric}
        return {"data": data.fingerprint, "checkpoint": self.checkpoint, "data_config": self.data_config} | found_by


def _scatter(values: Tensor, rows: Tensor, num_samples: int, missing: int | float, group: Any) -> Tensor:
    """Values of all N rows on every process, `missing` where a row has none, on the CPU."""
    everything = torch.full((num_samples,), missing, dtype=values.dtype)
    everything[gather_rows(rows, group).cpu()] = gather_rows(values, group).cpu()
    return everything


def _as_text(name: str) -> str:
    """A name as UTF-8 can hold it: bytes that are no text, which Python keeps as lone surrogates, are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _write_table(path: Path, clustering: Clustering, data: NamesItsRows) -> None:
    try:
        import pyarrow as pa  # not on every machine with a GPU, and no stage reads this table
    except ImportError:
        log.warning("found no pyarrow: no %s is written; the next stage does without", path)
        return
    columns = {
        "row": pa.array(range(len(clustering.labels)), pa.int64()),
        "sample_id": pa.array(data.training.sample_ids.numpy(), pa.int64()),
        "path": pa.array([_as_text(name) for name in data.training.names], pa.string()),
        "cluster": pa.array(clustering.labels.numpy(), pa.int64()),
        "distance": pa.array(clustering.distances.float().numpy(), pa.float32()),
    }
    write_list(path, columns, data.fingerprint)
