"""SaveClusters: the clusters of the training images, of every method, as files in the folder of the run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jaxtyping import Int
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from ssl_lightning.callbacks.cluster_files import write_cluster_files
from ssl_lightning.callbacks.cluster_sources import (
    Found,
    by_clusterer,
    by_labels,
    by_prototypes,
    prototypes_of,
    recluster_of,
)
from ssl_lightning.callbacks.recluster import pseudo_labels_of
from ssl_lightning.clustering.clusterer import Clusterer
from ssl_lightning.clustering.kmeans import KMeans
from ssl_lightning.clustering.saved import FOLDER, cluster_file, cluster_files, is_kept, metadata_of, step_of
from ssl_lightning.contracts import data_of, has_training_data
from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.errors import PreemptedError, UsageError, one_line
from ssl_lightning.files import sweep_temporary
from ssl_lightning.sample_state import PseudoLabels

log = logging.getLogger(__name__)
NUMBER = "number"
"""The metadata key of the number of a clustering of pseudo-labels, from 0."""


class SaveClusters(pl.Callback):
    """Write `clusters/step-<n>.safetensors` and `.parquet` in the folder of the run, like `WriteClusters`.

    - Methods with pseudo-labels: those of the first head, from the first clustering to the last one. Of many, at most
      21 are kept: evenly spaced ones, the first, and the newest.
    - SwAV: the nearest prototype of each image, at the end of training.
    - Other methods: k-means of the memory bank, or else of the features of the center views, at the end of training.

    The metadata have `step`, `epoch` and `source`: "pseudo-labels", "file" (labels of an earlier stage), "prototypes",
    "memory-bank" or "features". An image that cannot be read has cluster -1, and so has one that is left out. A file
    takes 12 bytes for each image and 4 for each value of a centroid.

    Weights and random state do not change. A failure is one warning.

    Args:
        num_clusters: K for methods without pseudo-labels and prototypes; null for one cluster for each 50 images, at
            least 2 and at most 100.
        clusterer: The algorithm for them.
        every_n_evaluations: For methods without pseudo-labels, also after every n-th evaluation during training; null
            for the end alone.
        max_images: Largest number of images of a pass. Of more images, a random subset has clusters.

    Raises:
        UsageError: For numbers below 1.
    """

    def __init__(
        self,
        num_clusters: int | None = None,
        clusterer: Clusterer = KMeans(metric="cosine", init="k-means++"),  # a frozen description
        every_n_evaluations: int | None = None,
        max_images: int = 50_000,
    ) -> None:
        given = {"num_clusters": num_clusters, "every_n_evaluations": every_n_evaluations, "max_images": max_images}
        for name, value in given.items():
            if value is not None and value < 1:
                raise UsageError(f"found {name}={value} of SaveClusters; expected at least 1")
        self.num_clusters, self.clusterer = num_clusters, clusterer
        self.every_n_evaluations, self.max_images = every_n_evaluations, max_images
        self.data_config = ""
        """The configuration of the data as JSON, to find the images again; the command line sets it."""
        self._evaluations = 0
        self._version = -1
        self._saved_step: int | None = None
        self._is_finished = self._has_warned = self._has_logged = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew, for a further fit of the same trainer."""
        self._version, self._saved_step, self._is_finished = -1, None, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove files of steps after the checkpoint of a resume, which are made again, and all of an earlier start."""
        with self._never_failing():
            if not trainer.is_global_zero:
                return
            sweep_temporary(_run(trainer) / FOLDER)
            for path in cluster_files(_run(trainer)):
                if step_of(path) > trainer.global_step or trainer.global_step == 0:
                    _remove(path)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save new pseudo-labels before the first step that learns from them."""
        labels = pseudo_labels_of(pl_module)
        if labels is not None and not labels.is_empty and labels.version != self._version:
            self._version = labels.version
            self._save_labels(trainer, pl_module, labels)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at every n-th evaluation during training."""
        if not self.every_n_evaluations or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._evaluations += 1
        if self._evaluations % self.every_n_evaluations == 0 and not _has_labels(pl_module):
            self._save_pass(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the clusters of the trained network."""
        self._finish(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same for a run that was killed after its last checkpoint, and has no step left to take."""
        if not self._is_finished:
            self._finish(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The number of evaluations, where they count."""
        return {"evaluations": self._evaluations} if self.every_n_evaluations else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._evaluations = int(state_dict["evaluations"])

    def _finish(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        labels = pseudo_labels_of(module)
        if labels is not None and not labels.is_empty:
            self._save_labels(trainer, module, labels)
        else:
            self._save_pass(trainer, module)
        self._is_finished = True

    def _save_labels(self, trainer: pl.Trainer, module: pl.LightningModule, labels: PseudoLabels) -> None:
        """Write the pseudo-labels, unless there is a file of them, and remove those that are no longer kept."""
        if not trainer.is_global_zero or not has_training_data(trainer):
            return
        with self._never_failing():
            newest = labels.version - 1
            numbers = {path: metadata_of(path).get(NUMBER) for path in cluster_files(_run(trainer))}
            if str(newest) in numbers.values():
                return
            recluster = recluster_of(trainer)
            made = (trainer.global_step, trainer.current_epoch)
            if recluster is not None and recluster.last_epoch >= 0:
                made = (recluster.last_step, recluster.last_epoch)
            self._write(trainer, by_labels(trainer, module), *made, {NUMBER: str(newest)})
            for path, found in numbers.items():
                if found is not None and found.isdigit() and not is_kept(int(found), newest):
                    _remove(path)

    def _save_pass(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the nearest prototypes or the clusters of features, all processes together."""
        if self._saved_step == trainer.global_step or not has_training_data(trainer):
            return
        with self._never_failing(), isolate_rng():
            rows = self._rows(trainer)
            prototypes = prototypes_of(module)
            if prototypes is not None:
                found = by_prototypes(trainer, module, prototypes, rows)
            else:
                found = by_clusterer(trainer, module, self.clusterer, self.num_clusters, rows)
            self._saved_step = trainer.global_step
            if not trainer.is_global_zero:
                return
            left_out = 0 if rows is None or found.source == "memory-bank" else data_of(trainer).num_samples - len(rows)
            if left_out:
                self._log_left_out(left_out)
            more = {"left_out": str(left_out)} if left_out else {}
            self._write(trainer, found, trainer.global_step, trainer.current_epoch, more)

    def _rows(self, trainer: pl.Trainer) -> Int[Tensor, "M"] | None:
        """The images of a pass, the same ones in every pass of a run; None for all."""
        data = data_of(trainer)
        if data.num_samples <= self.max_images:
            return None
        return permutation(data.seed, Purpose.CLUSTERING, 3, data.num_samples)[: self.max_images].sort().values

    def _write(self, trainer: pl.Trainer, found: Found, step: int, epoch: int, more: dict[str, str]) -> None:
        data = data_of(trainer)
        metadata = {
            "data": data.fingerprint,
            "checkpoint": "",
            "data_config": self.data_config,
            "layer": found.layer,
            "metric": found.metric,
            "step": str(step),
            "epoch": str(epoch),
            "source": found.source,
        }
        file = cluster_file(_run(trainer), step)
        write_cluster_files(file.with_suffix(""), found.clustering, data, metadata | more)

    def _log_left_out(self, left_out: int) -> None:
        if not self._has_logged:
            self._has_logged = True
            log.info(
                f"clusters of {self.max_images:,} random images; {left_out:,} others are left out: max_images of "
                "SaveClusters"
            )

    @contextmanager
    def _never_failing(self) -> Iterator[None]:
        """A context in which an error is one warning; the run has its checkpoints and metrics."""
        try:
            yield
        except PreemptedError:
            raise
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                reason = one_line(str(error)) or type(error).__name__
                log.warning("could not save the clusters of this run (%s); checkpoints and metrics are kept", reason)


def _has_labels(module: pl.LightningModule) -> bool:
    labels = pseudo_labels_of(module)
    return labels is not None and not labels.is_empty


def _run(trainer: pl.Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _remove(path: Path) -> None:
    """Remove both files of a clustering, the one that counts first."""
    path.unlink(missing_ok=True)
    path.with_suffix(".parquet").unlink(missing_ok=True)
