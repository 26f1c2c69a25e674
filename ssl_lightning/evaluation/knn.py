"""KNN: the weighted nearest-neighbour vote of instance recognition."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.evaluation.probe import LabelledFeatures, Probe

ROWS_AT_ONCE = 512
"""Queries whose similarities are held at once; a block of 512 x 50,000 floats is 100 MB."""


@dataclass(frozen=True)
class KNN(Probe):
    """k nearest training pictures by cosine vote with weight exp(similarity / temperature).

    Wu et al. 2018 (arXiv 1805.01978), section 3.4. `eval/knn/top1` is k=20, other k are `eval/knn<k>/top1`.

    Args:
        k: Neighbours; all training rows where there are fewer.
        temperature: 0.1 on CIFAR-10, 0.07 on ImageNet.
    """

    k: int = 20
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise ValueError(f"found KNN(k={self.k}, temperature={self.temperature}); expected positive numbers")

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """See `Probe`. NaN where a split is empty."""
        prefix = "knn" if self.k == 20 else f"knn{self.k}"
        if not len(train.labels) or not len(test.labels):
            return {f"{prefix}/top1": float("nan")}
        predicted = self.predict(train, test.features)
        return {f"{prefix}/top1": float((predicted == test.labels).double().mean())}

    def predict(self, train: LabelledFeatures, queries: Float[Tensor, "M D"]) -> Int[Tensor, "M"]:
        """The class with the largest vote for each query."""
        gallery = F.normalize(train.features, dim=1).T.contiguous()
        k = min(self.k, len(train.labels))
        blocks = []
        for block in F.normalize(queries, dim=1).split(ROWS_AT_ONCE):
            similarity, nearest = (block @ gallery).topk(k, dim=1)
            weights = (similarity / self.temperature).exp()
            votes = torch.zeros(len(block), train.num_classes, device=block.device)
            blocks.append(votes.scatter_add_(1, train.labels[nearest], weights).argmax(1))
        return torch.cat(blocks)
