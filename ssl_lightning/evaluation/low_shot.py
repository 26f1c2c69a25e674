"""LowShot: the linear probe with a fraction of the labels."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.counter_rng import Purpose, permutation
from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation.linear import LinearProbe
from ssl_lightning.evaluation.probe import LabelledFeatures, Probe


@dataclass(frozen=True)
class LowShot(Probe):
    """The linear probe on a fraction of the training split: the same fraction of every class, at least one image each.

    Smaller subsets are contained in larger ones. The semi-supervised protocols of SimCLR and SwAV fine-tune the
    network; here features stay frozen.

    Args:
        shares: Fractions of the training split.
        seed: Seed of the subsets.
    """

    shares: tuple[float, ...] = (0.01, 0.1)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise UsageError(f"found LowShot(shares={self.shares}); expected fractions above 0 and up to 1")

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """Return `lowshot/<percent>pct`, also of `test.groups`, and the exact fraction, `.../share`."""
        metrics: dict[str, float] = {}
        for share in self.shares:
            rows = self.rows(train.labels, share).to(train.features.device)
            part = LabelledFeatures(train.features[rows], train.labels[rows], train.num_classes)
            name = f"lowshot/{100 * share:g}pct"
            found = LinearProbe(self.seed)(part, test)  # which logs the reason of NaN
            metrics[name] = found["linear/top1"]
            metrics |= {
                f"{name}/top1_{group}": value
                for group in test.groups
                if (value := found.get(f"linear/top1_{group}")) is not None
            }
            metrics[f"{name}/share"] = len(rows) / max(1, len(train.labels))
        return metrics

    def rows(self, labels: Int[Tensor, "N"], share: float) -> Int[Tensor, "M"]:
        """The first rows of every class in one random order, ascending."""
        order = permutation(self.seed, Purpose.LOW_SHOT, 0, len(labels))
        shuffled = labels.cpu()[order]
        by_class = torch.argsort(shuffled, stable=True)
        sizes = torch.bincount(shuffled)
        rank = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[shuffled[by_class]]
        wanted = (sizes * share).round().clamp(min=1)
        return order[by_class[rank < wanted[shuffled[by_class]]]].sort().values
