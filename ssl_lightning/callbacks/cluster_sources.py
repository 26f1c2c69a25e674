"""Where the clusters of a method come from: pseudo-labels, prototypes, a memory bank, or k-means of its features."""

from dataclasses import dataclass
from typing import Literal

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.callbacks.embed import embed_rows
from ssl_lightning.callbacks.recluster import Recluster, of_all_rows, on_cpu, pseudo_labels_of
from ssl_lightning.clustering.clusterer import Clusterer, Clustering
from ssl_lightning.clustering.nearest_prototype import nearest_prototypes
from ssl_lightning.contracts import data_of
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.errors import DataError
from ssl_lightning.models.heads import Prototypes
from ssl_lightning.processes import block_of, highest, world
from ssl_lightning.sample_state import FeatureBank

Source = Literal["pseudo-labels", "file", "prototypes", "memory-bank", "features"]
"""Labels that the method learns from, made during the run or in an earlier stage; the nearest prototype; k-means."""
EMBEDDINGS = "projector"
"""The layer of prototypes and memory banks."""


@dataclass(frozen=True)
class Found:
    """The clusters of all training images, on the CPU.

    Attributes:
        clustering: Labels of all rows, -1 for an unreadable image and for one that is left out.
        source: Where they come from.
        layer: The layer of the features; empty if unknown.
        metric: Of the distances to the centroids; empty where the label is not that of the nearest centroid.
    """

    clustering: Clustering
    source: Source
    layer: str = ""
    metric: str = ""


def prototypes_of(module: object) -> Prototypes | None:
    """The prototypes of a method, those of the first head; None for a method without.

    Since Python 3.12 `isinstance` with a Protocol does not find submodules.
    """
    heads = getattr(module, "heads", None)
    found = getattr(module, "prototypes", None) or (heads[0] if isinstance(heads, torch.nn.ModuleList) else None)
    return found if isinstance(found, Prototypes) else None


def by_labels(trainer: pl.Trainer, module: pl.LightningModule) -> Found:
    """The pseudo-labels of the first head, with distances and centroids where they are at hand. No computation."""
    labels = pseudo_labels_of(module)
    assert labels is not None
    first = labels.rows[:, 0].cpu().long()
    file = _stage_file(module)
    if file:
        clustering, metadata = _loaded(file)
        if clustering is not None and torch.equal(clustering.labels.long(), first):
            return Found(clustering, "file", metadata.get("layer", ""), metadata.get("metric", ""))
    recluster = recluster_of(trainer)
    newest = recluster.newest if recluster is not None else None
    if recluster is not None and newest is not None and torch.equal(newest.labels, first):
        layer = EMBEDDINGS if _clusters_banks(module) else next(iter(getattr(module, "layers", ("",))))
        metric = _metric(recluster.clusterer) if recluster.transform is None else ""
        return Found(newest, "pseudo-labels", layer, metric)
    count = getattr(module, "num_clusters", None) or int(first.max()) + 1
    return Found(Clustering.without_features(first, count), "file" if file else "pseudo-labels")


def by_prototypes(
    trainer: pl.Trainer, module: pl.LightningModule, prototypes: Prototypes, rows: Int[Tensor, "M"] | None
) -> Found:
    """The nearest prototype of the center view of each image, in one pass.

    Args:
        trainer: The running trainer.
        module: A method; its layer "projector" gives the embeddings that are compared with prototypes.
        prototypes: Its prototypes.
        rows: The images; None for all.
    """
    own, embeddings = _embedded(trainer, module, rows, EMBEDDINGS)
    clustering = nearest_prototypes(embeddings, prototypes.weight, world())
    return Found(_of_all(trainer, clustering, own), "prototypes", EMBEDDINGS, "cosine")


def by_clusterer(
    trainer: pl.Trainer, module: pl.LightningModule, clusterer: Clusterer, k: int | None, rows: Int[Tensor, "M"] | None
) -> Found:
    """Clusters of the rows of a memory bank, or else of the features of the center views, in one pass.

    Args:
        trainer: The running trainer.
        module: A method.
        clusterer: The algorithm.
        k: Number of clusters, at most one for each image; None for `default_count`.
        rows: The images of a pass; None for all. A memory bank has all of them.
    """
    bank = filled_bank(module)
    if bank is not None:
        block = block_of(len(bank.rows), trainer.global_rank, trainer.world_size)
        own = bank.valid[block].nonzero().squeeze(1) + block.start
        features = bank.rows[own]
    else:
        own, features = _embedded(trainer, module, rows)
    count = _total(len(own), features.device)
    seed = number(data_of(trainer).seed, Purpose.CLUSTERING)
    clustering = clusterer(features, min(k or default_count(count), count), seed, world())
    layer = next(iter(getattr(module, "layers", ("",)))) if bank is None else EMBEDDINGS
    source: Source = "features" if bank is None else "memory-bank"
    return Found(_of_all(trainer, clustering, own), source, layer, _metric(clusterer))


def default_count(images: int) -> int:
    """K for clusters that a method does not define: one for each 50 images, at least 2 and at most 100."""
    return max(2, min(100, images // 50))


def filled_bank(module: object) -> FeatureBank | None:
    """The memory bank of a method, with embeddings of its images; None for a method without."""
    bank = getattr(module, "bank", None)
    return bank if isinstance(bank, FeatureBank) and bool(bank.valid.any()) else None


def recluster_of(trainer: pl.Trainer) -> Recluster | None:
    """The callback that makes the pseudo-labels."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    return next((each for each in callbacks if isinstance(each, Recluster)), None)


def _embedded(
    trainer: pl.Trainer, module: pl.LightningModule, rows: Int[Tensor, "M"] | None, layer: str | None = None
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n D"]]:
    """Features of some images; an error of one process is raised on all, which would wait for each other."""
    found, error = None, None
    try:
        found = embed_rows(trainer, module, rows, layer)
    except Exception as raised:
        error = raised
    if int(highest(torch.tensor([error is not None], dtype=torch.int64, device=trainer.strategy.root_device))):
        raise error or DataError("found features that another process could not compute")
    assert found is not None
    return found


def _of_all(trainer: pl.Trainer, clustering: Clustering, rows: Int[Tensor, "n"]) -> Clustering:
    return on_cpu(of_all_rows(clustering, rows, data_of(trainer).num_samples, world()))


def _total(count: int, device: torch.device) -> int:
    total = torch.tensor([count], device=device)
    group = world()
    if group is not None:
        torch.distributed.all_reduce(total, group=group)
    return int(total)


def _metric(clusterer: Clusterer) -> str:
    return getattr(clusterer, "metric", "") if clusterer.labels_are_nearest else ""


def _clusters_banks(module: object) -> bool:
    banks = getattr(module, "clustered_banks", None)
    return bool(banks()) if banks is not None else False


def _stage_file(module: object) -> str:
    """The file of an earlier stage that the pseudo-labels come from; empty where they are made during the run."""
    files = getattr(module, "stage_files", None)
    return str(files().get("clusters", "")) if files is not None else ""


def _loaded(file: str) -> tuple[Clustering | None, dict[str, str]]:
    """The clustering of a file; None if it is no longer there, since a checkpoint holds its labels."""
    try:
        return Clustering.load(file)
    except DataError:
        return None, {}
