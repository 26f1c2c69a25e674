"""The interface of probes: frozen features of two labeled splits in, named metrics out."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from jaxtyping import Float, Int
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features of one labeled split.

    Attributes:
        features: Output of the network, not normalized.
        labels: Classes 0..num_classes-1.
        num_classes: Length of the class list, including classes that do not occur in this split.
        groups: Classes of which probes report the accuracy too, such as "head" and "tail" of a test split.
    """

    features: Float[Tensor, "N D"]
    labels: Int[Tensor, "N"]
    num_classes: int
    groups: Mapping[str, Int[Tensor, "_"]] = field(default_factory=dict)


class Probe(ABC):
    """An evaluation of frozen features. It is a check during training, not the full protocol of a paper."""

    @abstractmethod
    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """Return metrics by name, without their prefix `eval/`, as fractions 0..1; NaN if a metric is undefined.

        `undefined` logs the reason.
        """


@lru_cache(maxsize=256)  # a run evaluates every few epochs: each reason is logged once
def undefined(metric: str, found: str, expected: str) -> float:
    """Return NaN and log why a metric is undefined.

    Args:
        metric: The probe and its metric.
        found: What the split holds.
        expected: What the metric requires.
    """
    log.warning("%s is NaN: found %s; expected %s", metric, found, expected)
    return float("nan")
