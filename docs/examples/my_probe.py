"""A probe: the accuracy of the nearest class mean."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ssl_lightning.evaluation import LabelledFeatures, Probe


@dataclass(frozen=True)
class NearestMean(Probe):
    """Classify each test image by the class mean with the largest cosine."""

    def __call__(self, train: LabelledFeatures, test: LabelledFeatures) -> dict[str, float]:
        """`nearest_mean/top1`, which is logged as `eval/nearest_mean/top1`."""
        one_hot = F.one_hot(train.labels, train.num_classes).float()
        means = F.normalize(one_hot.T @ F.normalize(train.features, dim=1), dim=1)
        predicted = (test.features @ means.T).argmax(1)
        return {"nearest_mean/top1": float((predicted == test.labels).to(torch.float64).mean())}
