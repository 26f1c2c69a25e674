"""Recluster: cluster the features of the training images during training."""

import logging
import time
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist

from ssl_lightning.callbacks.embed import embed_dataset, fill_banks
from ssl_lightning.callbacks.publish import publish
from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.diagnostics import cluster_metrics
from ssl_lightning.clustering.rows import is_finite
from ssl_lightning.clustering.whitening import FeatureTransform
from ssl_lightning.contracts import TrainingData, data_of
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.errors import UsageError, diverged
from ssl_lightning.processes import block_of, highest, scatter_rows, world
from ssl_lightning.sample_state import FeatureBank, PseudoLabels
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)


@runtime_checkable
class LearnsFromClusters(Protocol):
    """The optional ability of a method that this callback needs, together with `pseudo_labels_of`."""

    num_clusters: int
    num_heads: int
    warmup_epochs: int

    def clustered_banks(self) -> list[FeatureBank]:
        """Memory banks to cluster instead of the features of a pass over the images."""
        ...

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Take new clusters."""
        ...


def pseudo_labels_of(module: object) -> PseudoLabels | None:
    """The pseudo-labels of a method. Since Python 3.12 `isinstance` with a Protocol does not find submodules."""
    labels = getattr(module, "pseudo_labels", None)
    return labels if isinstance(labels, PseudoLabels) else None


class Recluster(pl.Callback):
    """Cluster the features of all training images at the start of epochs, or every few steps.

    The first clustering is made before the first step. Clusterings are a function of features, seed and epoch, so a
    run that is killed while it clusters makes the same clusters again.

    Args:
        clusterer: The algorithm.
        transform: Applied to the features before, for example `PCAWhitening`; not for methods with clustered
            memory banks.
        every_n_epochs: At the start of every n-th epoch.
        every_n_steps: Before every n-th optimizer step instead.
        first_epoch: No clustering before this epoch, nor before the end of the method's `warmup_epochs`.

    Raises:
        UsageError: For intervals below 1, and in `setup` for a transform of memory banks.
    """

    def __init__(
        self,
        clusterer: Clusterer,
        transform: FeatureTransform | None = None,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        first_epoch: int = 0,
    ) -> None:
        if every_n_epochs < 1 or (every_n_steps is not None and every_n_steps < 1) or first_epoch < 0:
            raise UsageError(
                f"found every_n_epochs={every_n_epochs}, every_n_steps={every_n_steps}, first_epoch={first_epoch}; "
                "expected intervals of at least 1 and a first epoch of at least 0"
            )
        self.clusterer, self.transform = clusterer, transform
        self.every_n_epochs, self.every_n_steps, self.first_epoch = every_n_epochs, every_n_steps, first_epoch
        self.last_epoch = -1
        self.last_step = -1
        self.metrics: dict[str, float] = {}
        self.newest: Clustering | None = None
        """The first of the last clusterings, of all rows, on the CPU; None before the first of them."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reject a transform of memory banks: the method compares features and clusters in the same space."""
        if self.transform is not None and isinstance(pl_module, LearnsFromClusters) and pl_module.clustered_banks():
            raise UsageError(
                f"found transform={type(self.transform).__name__} of Recluster with {type(pl_module).__name__}, which "
                "clusters its memory banks without a transform; expected none: take it out of trainer.callbacks"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cluster before the first step, unless labels come from a checkpoint: the epoch is not yet restored here."""
        method, labels = _learner(pl_module)
        if self._first(method) == 0 and labels.is_empty:
            self.recluster(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the metrics of the current clusters from a checkpoint."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.metrics.items()})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cluster at the start of an epoch that has no clusters yet."""
        since = trainer.current_epoch - self._first(_learner(pl_module)[0])
        due = since >= 0 and (since == 0 if self.every_n_steps else since % self.every_n_epochs == 0)
        if due and self.last_epoch != trainer.current_epoch:
            self.recluster(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Cluster every n steps, where that is the interval."""
        step = trainer.global_step
        started = trainer.current_epoch >= self._first(_learner(pl_module)[0])
        if self.every_n_steps and started and step % self.every_n_steps == 0 and step > max(self.last_step, 0):
            self.recluster(trainer, pl_module)

    def recluster(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cluster the features, pass the clusters to the method, and log their metrics."""
        start = time.perf_counter()
        (method, labels), data = _learner(pl_module), data_of(trainer)
        epoch, step = trainer.current_epoch, trainer.global_step
        moment = epoch if self.every_n_steps is None else step
        if labels.is_empty and trainer.is_global_zero:
            log.info(f"first clustering: {data.num_samples:,} images, {method.num_clusters:,} clusters")
        previous = labels.rows.clone()
        clusterings = self._cluster(trainer, pl_module, data, moment)
        method.on_reclustered(clusterings, number(data.seed, Purpose.HEAD, moment))
        self.last_epoch, self.last_step = epoch, step
        self.newest = on_cpu(clusterings[0])
        metrics = _metrics(clusterings, previous, data.labels)
        self.metrics = {f"cluster/{name}": value for name, value in metrics.items()}
        publish(trainer, self.metrics | {"cluster/seconds": time.perf_counter() - start})

    def state_dict(self) -> dict[str, Any]:
        """The epoch, the step and the metrics of the current clusters."""
        return {"last_epoch": self.last_epoch, "last_step": self.last_step, "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.last_epoch, self.last_step = int(state_dict["last_epoch"]), int(state_dict["last_step"])
        self.metrics = {str(name): float(value) for name, value in state_dict["metrics"].items()}

    def _first(self, method: LearnsFromClusters) -> int:
        """The epoch of the first clustering."""
        return max(self.first_epoch, method.warmup_epochs)

    def _cluster(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, data: TrainingData, moment: int
    ) -> list[Clustering]:
        """A clustering for each head, of all rows with features; the others get the label -1."""
        (method, _), group = _learner(pl_module), world()
        _warn_of_many_clusters(method.num_clusters, data.num_samples)
        sources = _sources(trainer, pl_module, method.clustered_banks())
        _reject_non_finite(trainer, sources)
        if self.transform is not None:
            sources = [(rows, self.transform(features, group)) for rows, features in sources]
        clusterings = []
        for head in range(method.num_heads):
            rows, features = sources[head % len(sources)]
            seed = number(data.seed, Purpose.CLUSTERING, moment, view=head)
            clustering = self.clusterer(features, method.num_clusters, seed, group)
            clusterings.append(of_all_rows(clustering, rows, data.num_samples, group))
        return clusterings


def on_cpu(clustering: Clustering) -> Clustering:
    """The same clustering on the CPU."""
    names = ("labels", "distances", "centroids", "sizes")
    return replace(clustering, **{name: getattr(clustering, name).cpu() for name in names})


def _learner(module: pl.LightningModule) -> tuple[LearnsFromClusters, PseudoLabels]:
    labels = pseudo_labels_of(module)
    if labels is None or not isinstance(module, LearnsFromClusters):
        raise UsageError(
            f"found Recluster with {type(module).__name__}, which does not learn from clusters; take it out of "
            "trainer.callbacks"
        )
    return module, labels


def _sources(
    trainer: pl.Trainer, module: pl.LightningModule, banks: list[FeatureBank]
) -> list[tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]]:
    """This process's rows and their features: a block of each bank, or of a pass over the images."""
    if not banks:
        return [embed_dataset(trainer, module)]
    if any(bank.is_empty for bank in banks):
        fill_banks(trainer, module, banks)
    sources = []
    for bank in banks:
        block = block_of(len(bank.rows), trainer.global_rank, trainer.world_size)
        rows = bank.valid[block].nonzero().squeeze(1) + block.start
        sources.append((rows, bank.rows[rows]))
    return sources


def _reject_non_finite(trainer: pl.Trainer, sources: list[tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]]) -> None:
    """Raise on all processes, before they wait for each other."""
    bad = not all(is_finite(features) for _, features in sources)
    if int(highest(torch.tensor([bad], dtype=torch.int64, device=trainer.strategy.root_device))):
        raise diverged(f"features to cluster that are not finite at step {trainer.global_step}")


def of_all_rows(
    clustering: Clustering, rows: Int[Tensor, "n"], num_samples: int, group: dist.ProcessGroup | None
) -> Clustering:
    """Labels and distances of all N rows on every process, from those of this process's rows."""
    labels = scatter_rows(clustering.labels.long(), rows, num_samples, group, UNLABELLED)
    distances = scatter_rows(clustering.distances.float(), rows, num_samples, group, torch.nan)
    return Clustering(
        labels, distances, clustering.centroids, clustering.sizes, clustering.objective, clustering.repairs
    )


def _metrics(clusterings: list[Clustering], previous: Int[Tensor, "_M _H"], own: Int[Tensor, "N"]) -> dict[str, float]:
    """Means over the heads and, where there are several, the metrics of each."""
    heads = []
    for head, clustering in enumerate(clusterings):
        before = previous[:, head].cpu().long() if previous.numel() else None
        known = own if bool((own != UNLABELLED).any()) else None
        sizes, labels = clustering.sizes.cpu(), clustering.labels.cpu()
        heads.append(cluster_metrics(sizes, labels, before, known, clustering.objective))
    means = {name: sum(head[name] for head in heads) / len(heads) for name in heads[0]}
    if len(heads) == 1:
        return means
    return means | {f"{place}/{name}": value for place, head in enumerate(heads) for name, value in head.items()}


def _warn_of_many_clusters(k: int, num_samples: int) -> None:
    if k * 10 > num_samples:
        log.warning(
            "found num_clusters=%d for %d images, fewer than 10 a cluster; consider a lower --model.num_clusters",
            k,
            num_samples,
        )
