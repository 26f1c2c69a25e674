"""NeighborPurity: how often the neighbors that a method learns from are of the image's own class."""

from typing import Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ssl_lightning.callbacks.publish import publish
from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.types import UNLABELLED

ASKED = 512
"""Images whose neighbors are looked at."""


@runtime_checkable
class HasNeighbors(Protocol):
    """What this callback needs of a method."""

    has_neighbors: bool
    """False before the first clusters."""

    def neighbors(self, index: Int[Tensor, "B"]) -> tuple[Int[Tensor, "B n"], Bool[Tensor, "B n"], Bool[Tensor, "B n"]]:
        """Rows near to some rows, which of them count as background, and which as close; itself first."""
        ...


@runtime_checkable
class KnowsItsLabels(Protocol):
    """What this callback needs of the data."""

    seed: int
    num_samples: int

    def true_labels(self) -> Int[Tensor, "N"]:
        """The images' own classes, for diagnostics only."""
        ...


class NeighborPurity(pl.Callback):
    """Compare the neighbors' classes with the images' own, at the end of every epoch, where there are labels.

    - `cluster/close_purity`, the share of the close neighbors of an image that are of its class;
    - `cluster/background_purity`, the same of its background neighbors;
    - `cluster/chance_purity`, that of any other images.

    The image itself is left out of all three. The method never sees the labels.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask the same few hundred images each time."""
        if not isinstance(pl_module, HasNeighbors) or not pl_module.has_neighbors:
            return
        data = cast(KnowsItsLabels, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning when fitting
        labels = data.true_labels()
        known = (labels != UNLABELLED).nonzero().squeeze(1)
        if len(known):
            asked = known[permutation(data.seed, Purpose.REFERENCE, 0, len(known))[:ASKED]]
            publish(trainer, purity_of_neighbors(pl_module, asked, labels))


@torch.no_grad()
def purity_of_neighbors(method: HasNeighbors, asked: Int[Tensor, "B"], labels: Int[Tensor, "N"]) -> dict[str, float]:
    """Shares of neighbors of the own class, over all neighbors of all images asked, and that of any image.

    Args:
        method: Knows who is near to whom.
        asked: Labelled rows.
        labels: Class of each row, -1 where it has none; such neighbors are left out.
    """
    rows, background, close = (part.cpu() for part in method.neighbors(asked))
    others = (rows != asked.unsqueeze(1)) & (labels[rows] != UNLABELLED)
    same = labels[rows] == labels[asked].unsqueeze(1)
    counts = labels[labels != UNLABELLED].bincount().double()
    chance = (counts[labels[asked]] - 1) / (counts.sum() - 1)
    return {
        "cluster/close_purity": _shard(same, close & others),
        "cluster/background_purity": _shard(same, background & others),
        "cluster/chance_purity": float(chance.mean()),
    }


def _shard(same: Bool[Tensor, "B n"], members: Bool[Tensor, "B n"]) -> float:
    """NaN where there is no member."""
    return float((same & members).sum().double() / members.sum())
