"""NeighborPurity: the share of a method's neighbors that have the class of the image."""

from typing import Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ssl_lightning.callbacks.publish import publish
from ssl_lightning.contracts import data_of
from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.types import UNLABELLED, label_counts

IMAGES = 512
"""Number of images with evaluated neighbors."""


@runtime_checkable
class HasNeighbors(Protocol):
    """The optional ability of a method that this callback uses."""

    has_neighbors: bool
    """Whether there are clusters yet."""

    def neighbors(self, index: Int[Tensor, "B"]) -> tuple[Int[Tensor, "B n"], Bool[Tensor, "B n"], Bool[Tensor, "B n"]]:
        """Rows near to some rows, which of them are background, and which are close; the row itself is first."""
        ...


class NeighborPurity(pl.Callback):
    """Compare the classes of neighbors with those of the images at the end of every epoch, where there are labels.

    - `cluster/close_purity`, the share of the close neighbors of an image that are of its class;
    - `cluster/background_purity`, the same of its background neighbors;
    - `cluster/chance_purity`, that of any other images.

    The image itself is left out of all three. The labels are for this metric alone.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the same images each time."""
        if not isinstance(pl_module, HasNeighbors) or not pl_module.has_neighbors:
            return
        data = data_of(trainer)
        labels = data.labels
        known = (labels != UNLABELLED).nonzero().squeeze(1)
        if len(known):
            rows = known[permutation(data.seed, Purpose.REFERENCE, 0, len(known))[:IMAGES]]
            publish(trainer, purity_of_neighbors(pl_module, rows, labels))


@torch.no_grad()
def purity_of_neighbors(method: HasNeighbors, images: Int[Tensor, "B"], labels: Int[Tensor, "N"]) -> dict[str, float]:
    """Shares of neighbors of the own class, over all neighbors of some images, and that of any other image.

    Args:
        method: With neighbors.
        images: Labeled rows.
        labels: Class of each row, -1 where it has none; such neighbors are left out.
    """
    rows, background, close = (table.cpu() for table in method.neighbors(images))
    others = (rows != images.unsqueeze(1)) & (labels[rows] != UNLABELLED)
    same = labels[rows] == labels[images].unsqueeze(1)
    counts = label_counts(labels).double()
    chance = (counts[labels[images]] - 1) / (counts.sum() - 1)
    return {
        "cluster/close_purity": _share(same, close & others),
        "cluster/background_purity": _share(same, background & others),
        "cluster/chance_purity": float(chance.mean()),
    }


def _share(same: Bool[Tensor, "B n"], members: Bool[Tensor, "B n"]) -> float:
    """NaN without members."""
    return float((same & members).sum().double() / members.sum())
