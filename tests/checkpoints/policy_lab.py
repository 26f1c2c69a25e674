"""A user's own package, named in SSL_LIGHTNING_PLUGINS: a method with typed places, a clusterer, a probe, a source."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from ssl_lightning.clustering import KMeans
from ssl_lightning.clustering.clusterer import Clusterer
from ssl_lightning.data import Digits
from ssl_lightning.evaluation.probe import Probe
from ssl_lightning.methods.method import Method
from ssl_lightning.models import DEFAULT_PREPROCESSING, Backbone, Preprocessing, ResNet18


def make_optimizer(parameters):
    """A function, which no file may name."""
    raise AssertionError("a function was called")


class Recipe(Method):
    """A method with a place of every kind."""

    def __init__(
        self,
        backbone: Backbone = ResNet18(width=8),  # noqa: B008
        optimizer: OptimizerCallable = torch.optim.SGD,
        learning_rate: LRSchedulerCallable | None = None,
        augment: nn.Module | None = None,
        activation: type[nn.Module] = nn.ReLU,
        layers_of: list[nn.Module] | None = None,
        anything: Any = None,
        untyped=None,
        options: dict[str, Any] | None = None,
        score: Callable[[float], float] | None = None,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, None, preprocessing)
        self.learning_rate, self.augment, self.activation = learning_rate, augment, activation
        self.layers_of, self.anything, self.untyped, self.given = layers_of, anything, untyped, options
        self.head = nn.Linear(self.backbone.num_features, 10)

    @classmethod
    def alternate(cls, command: str = "") -> "Recipe":
        """An alternate constructor, which no file may name."""
        raise AssertionError("an alternate constructor was called")

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters())
        if self.learning_rate is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.learning_rate(optimizer)}

    def training_step(self, batch, batch_idx):
        images = batch.views[0] if self.augment is None else self.augment(batch.views[0])
        logits = self.head(self.activation()(self(images)))
        return {"loss": nn.functional.cross_entropy(logits, batch.index % 10)}


class Deeper(Recipe):
    """A method that passes what it does not know on to its base."""

    def __init__(self, depth: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.depth = depth


@dataclass(frozen=True)
class Halves(Clusterer):
    """A clusterer that is k-means under another name."""

    iterations: int = 3

    def __call__(self, features, k, seed=0, group=None):
        return KMeans(iterations=self.iterations)(features, k, seed, group)


@dataclass(frozen=True)
class Mean(Probe):
    """A probe that answers with the mean of all features."""

    def __call__(self, train, test):
        return {"mean": float(test.features.mean())}


@dataclass(kw_only=True, eq=False)
class FewDigits(Digits):
    """A source of one's own."""


AN_INSTANCE = KMeans()
