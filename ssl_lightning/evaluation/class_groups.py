"""Head and tail: the classes with the most and with the fewest training images, and the accuracy on each."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ssl_lightning.evaluation.probe import LabelledFeatures

LONG_TAILED = 10
"""Least ratio of the largest class to the smallest one for which head and tail are reported."""


def head_and_tail(sizes: Sequence[int]) -> dict[str, Int[Tensor, "_c"]]:
    """The third of the classes with the most training images, "head", and the third with the fewest, "tail".

    Classes of equal size are in the order of the class list. Empty for fewer than three classes, and where the largest
    class has less than ten times as many images as the smallest one.

    Args:
        sizes: Number of training images of each class; a class without images belongs to no group.
    """
    counts = torch.tensor(sizes, dtype=torch.int64)
    present = counts.nonzero().flatten()
    third = len(present) // 3
    if third == 0 or counts.max() < LONG_TAILED * counts[present].min():
        return {}
    ordered = present[counts[present].argsort(stable=True, descending=True)]
    return {"head": ordered[:third], "tail": ordered[-third:]}


def accuracies(name: str, correct: Bool[Tensor, "M"], test: LabelledFeatures) -> dict[str, float]:
    """The fraction of correct rows, and `<name>_<group>` of the rows of each group of classes that has some.

    Args:
        name: Name of the metric.
        correct: Whether each row is classified correctly.
        test: The rows.
    """
    found = {name: float(correct.double().mean())}
    for group, classes in test.groups.items():
        own = torch.isin(test.labels, classes.to(test.labels.device))
        if bool(own.any()):
            found[f"{name}_{group}"] = float(correct[own].double().mean())
    return found
