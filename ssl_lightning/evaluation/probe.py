"""The contract of every judge: frozen features of two labelled splits in, named numbers out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features of one labelled split.

    Attributes:
        features: As the network gives them, not normalised.
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
        """Answers by name, as they stand after `eval/`, as fractions 0..1; NaN where a question has no answer."""
