"""Recluster: when to cluster. The clusterer knows how, the method what it means."""

import logging
import time
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch import distributed as dist

from ssl_lightning.callbacks.embed import embed_dataset, fill_banks
from ssl_lightning.callbacks.publish import publish
from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.diagnostics import cluster_metrics
from ssl_lightning.clustering.whitening import FeatureTransform
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.errors import UsageError, diverged
from ssl_lightning.processes import gather_rows, highest, world
from ssl_lightning.sample_state import FeatureBank, PseudoLabels
from ssl_lightning.types import UNLABELLED

log = logging.getLogger(__name__)


@runtime_checkable
class HasMemories(Protocol):
    """What is asked of a method before it fits. No submodule: since Python 3.12 `isinstance` does not see those."""

    def clustered_banks(self) -> list[FeatureBank]:
        """Memories to cluster instead of the features of a pass over the images."""
        ...


class LearnsFromClusters(HasMemories, Protocol):
    """What this callback needs of a method."""

    num_clusters: int
    num_heads: int
    warmup_epochs: int
    pseudo_labels: PseudoLabels

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Take up new clusters."""
        ...


@runtime_checkable
class KnowsItsRows(Protocol):
    """What this callback needs of the data."""

    seed: int
    num_samples: int

    def true_labels(self) -> Int[Tensor, "N"]:
        """The images' own classes, for diagnostics only."""
        ...


class Recluster(pl.Callback):
    """Cluster the features of all training images at the start of epochs, or every few steps.

    The first clustering is made before the first step. Clusterings are a function of features, seed and epoch, so a
    run that is killed while it clusters makes the same clusters again.

    Args:
        clusterer: How.
        transform: What is done to the features before, for example `PCAWhitening`; not for methods whose memories are
            clustered.
        every_n_epochs: At the start of every n-th epoch.
        every_n_steps: Before every n-th optimizer step instead.
        first_epoch: No clustering before this epoch, nor before the method's own `warmup_epochs` are over.

    Raises:
        ValueError: For intervals below 1, and at set-up for a transform of memories.
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

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reject a transform of memories: the clusters belong to the space that the method compares them in."""
        if self.transform is not None and isinstance(pl_module, HasMemories) and pl_module.clustered_banks():
            raise UsageError(
                f"found transform={type(self.transform).__name__} of Recluster with {type(pl_module).__name__}, whose "
                "memories are clustered as they are; expected none: take it out of trainer.callbacks"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first step, unless a checkpoint brought labels: the memory knows, the epoch counter not yet."""
        _reject_methods_without_clusters(pl_module)
        if self._first(pl_module) == 0 and cast(LearnsFromClusters, pl_module).pseudo_labels.is_empty:
            self.recluster(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What a checkpoint knows of the current clusters is known to whoever reads the metrics, as before the stop."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.metrics.items()})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """At the start of an epoch that has no clusters of its own yet."""
        since = trainer.current_epoch - self._first(pl_module)
        due = since >= 0 and (since == 0 if self.every_n_steps else since % self.every_n_epochs == 0)
        if due and self.last_epoch != trainer.current_epoch:
            self.recluster(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Every n steps, where that is the rhythm."""
        step = trainer.global_step
        started = trainer.current_epoch >= self._first(pl_module)
        if self.every_n_steps and started and step % self.every_n_steps == 0 and step > max(self.last_step, 0):
            self.recluster(trainer, pl_module)

    def recluster(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Features, clusters, what they mean, and their numbers."""
        start = time.perf_counter()
        method = cast(LearnsFromClusters, pl_module)
        data = cast(KnowsItsRows, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning when fitting
        epoch, step = trainer.current_epoch, trainer.global_step
        moment = epoch if self.every_n_steps is None else step
        previous = method.pseudo_labels.rows.clone()
        clusterings = self._cluster(trainer, pl_module, data, moment)
        method.on_reclustered(clusterings, number(data.seed, Purpose.HEAD, moment))
        self.last_epoch, self.last_step = epoch, step
        metrics = _metrics(clusterings, previous, data.true_labels())
        self.metrics = {f"cluster/{name}": value for name, value in metrics.items()}
        publish(trainer, self.metrics | {"cluster/seconds": time.perf_counter() - start})

    def state_dict(self) -> dict[str, Any]:
        """When the current clusters were made, and their numbers."""
        return {"last_epoch": self.last_epoch, "last_step": self.last_step, "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a checkpoint's moment."""
        self.last_epoch, self.last_step = int(state_dict["last_epoch"]), int(state_dict["last_step"])
        self.metrics = {str(name): float(value) for name, value in state_dict["metrics"].items()}

    def _first(self, module: pl.LightningModule) -> int:
        """The epoch of the first clustering."""
        return max(self.first_epoch, cast(LearnsFromClusters, module).warmup_epochs)

    def _cluster(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, data: KnowsItsRows, moment: int
    ) -> list[Clustering]:
        """A clustering a head, of all rows that have features; the others get the label -1."""
        method, group = cast(LearnsFromClusters, pl_module), world()
        _mention_many_clusters(method.num_clusters, data.num_samples)
        sources = _sources(trainer, pl_module)
        _reject_non_finite(trainer, sources)
        if self.transform is not None:
            sources = [(rows, self.transform(features, group)) for rows, features in sources]
        clusterings = []
        for head in range(method.num_heads):
            rows, features = sources[head % len(sources)]
            seed = number(data.seed, Purpose.CLUSTERING, moment, view=head)
            clustering = self.clusterer(features, method.num_clusters, seed, group)
            clusterings.append(_concentration(clustering, rows, data.num_samples, group))
        return clusterings


def _sources(trainer: pl.Trainer, module: pl.LightningModule) -> list[tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]]:
    """This process's rows and their features: a block of each memory, or of a pass over the images."""
    banks = cast(LearnsFromClusters, module).clustered_banks()
    if not banks:
        return [embed_dataset(trainer, module)]
    if any(bank.is_empty for bank in banks):
        fill_banks(trainer, module, banks)
    rank, size = trainer.global_rank, trainer.world_size
    sources = []
    for bank in banks:
        begin, end = (len(bank.rows) * (rank + extra) // size for extra in (0, 1))
        rows = bank.valid[begin:end].nonzero().squeeze(1) + begin
        sources.append((rows, bank.rows[rows]))
    return sources


def _reject_non_finite(trainer: pl.Trainer, sources: list[tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]]) -> None:
    """On all processes alike, before they wait for each other."""
    # a sum is ten times faster than a look at every value, and finite only if all of them are
    doubtful = [features for _, features in sources if not torch.isfinite(features.sum())]
    bad = any(not torch.isfinite(features).all() for features in doubtful)
    if int(highest(torch.tensor([bad], dtype=torch.int64, device=trainer.strategy.root_device))):
        raise diverged(f"features to cluster that are not finite at step {trainer.global_step}")


def _concentration(
    clustering: Clustering, rows: Int[Tensor, "n"], num_samples: int, group: dist.ProcessGroup | None
) -> Clustering:
    """Labels and distances of all N rows on every process, from those of this process's rows."""
    rows = gather_rows(rows, group)
    labels = torch.full((num_samples,), UNLABELLED, dtype=torch.int64, device=rows.device)
    distances = torch.full((num_samples,), torch.nan, device=rows.device)
    labels[rows] = gather_rows(clustering.labels.long(), group)
    distances[rows] = gather_rows(clustering.distances.float(), group)
    return Clustering(
        labels, distances, clustering.centroids, clustering.sizes, clustering.objective, clustering.repairs
    )


def _metrics(clusterings: list[Clustering], previous: Int[Tensor, "_M _H"], own: Int[Tensor, "N"]) -> dict[str, float]:
    """Means over the heads and, where there are several, the numbers of each."""
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


def _mention_many_clusters(k: int, num_samples: int) -> None:
    if k * 10 > num_samples:
        log.warning(
            "found num_clusters=%d for %d images, fewer than 10 a cluster; consider a lower --model.num_clusters",
            k,
            num_samples,
        )


def _reject_methods_without_clusters(module: nn.Module) -> None:
    if not isinstance(getattr(module, "pseudo_labels", None), PseudoLabels):
        raise UsageError(
            f"found Recluster with {type(module).__name__}, which does not learn from clusters; take it out of "
            "trainer.callbacks"
        )
