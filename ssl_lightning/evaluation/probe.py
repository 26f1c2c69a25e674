"""The contract of every evaluate: frozen features of two labelled splits in, named numbers out."""

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

from jaxtyping import Float, Int
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features of one labelled split.

    Attributes:
        features: As the network gives them, not normalized.
        labels: 0..num_classes-1.
        num_classes: Length of the fixed class list, whether or not each class occurs in this split.
    """

    features: Float[Tensor, "N D"]
    labels: Int[Tensor, "N"]
    num_classes: int


class Probe(ABC):
    """One question about frozen features. Fitting it is a check during training, not a paper's full protocol."""

    @abstractmethod
    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """Answers by name, as they stand after `eval/`, as fractions 0..1; NaN where a question has no answer.

        The log says why, see `no_answer`.
        """


@lru_cache(maxsize=256)  # a run asks the same question every few epochs: each reason is said once
def no_answer(question: str, found: str, expected: str) -> float:
    """NaN, and a line in the log that says why an evaluate has no answer.

    Args:
        question: The evaluate, and its metric.
        found: What there is.
        expected: What it takes.
    """
    log.warning("%s is NaN: found %s; expected %s", question, found, expected)
    return float("nan")
