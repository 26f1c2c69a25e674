"""Supervised: the labels of the images, a chosen share of them wrong. A control arm, not self-supervised."""

import math

import torch
from jaxtyping import Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ssl_lightning.contracts import data_of
from ssl_lightning.counter_rng import Purpose, uniform
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, stuck_at_chance
from ssl_lightning.functional.pseudo_label import pseudo_label_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.types import UNLABELLED, Batch


class Supervised(Method):
    """Learn the classes of the images: a pretext task and a control arm. The loss of this method uses labels.

    Cross-entropy of one linear layer to the label of the first view's image. With `label_noise` it is the pretext
    task of ClusterFit's control experiment (Yan, Misra, Gupta, Ghadiyaram, Mahajan, CVPR 2020, arXiv 1912.03330), which
    measures how useful a network is that was trained on wrong labels.

    Note:
        A label is replaced once by a class sampled uniformly from all classes, the true one included: with noise p over
        C classes a share of 1 - p + p / C stays right. The replaced labels and their classes are a function of the
        data's seed and the row, the same in every epoch, worker, process and resume.

    Args:
        label_noise: p, the share of labels that are replaced, 0 to 1.
        num_classes: C.
        backbone: Description of the network.
        optimizer: By default the usual one of CIFAR-10: SGD, lr 0.1, Nesterov's momentum 0.9, weight decay 5e-4.
        schedule: Of the learning rate; None keeps it constant.
        decay_all: Weight decay for biases and normalization layers too.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: For numbers out of range.
    """

    def __init__(
        self,
        label_noise: float = 0.0,
        num_classes: int = 10,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        ),
        schedule: Schedule | None = None,
        decay_all: bool = True,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        if not 0 <= label_noise <= 1 or num_classes < 2:
            raise UsageError(
                f"found label_noise={label_noise}, num_classes={num_classes}; expected a share within 0..1 and at "
                "least 2 classes"
            )
        self.label_noise, self.num_classes = label_noise, num_classes
        self.head = nn.Linear(self.backbone.num_features, num_classes)
        self.chance_loss = math.log(num_classes)

    def logits(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C"]:
        """A logit for each class."""
        return self.head(self(images))

    def setup(self, stage: str) -> None:
        """Reject data without labels, or with more classes than the head has.

        Raises:
            UsageError: For either of them.
        """
        super().setup(stage)
        if stage != "fit":
            return
        highest = int(data_of(self.trainer).labels.max())
        if highest == UNLABELLED:
            raise UsageError(
                "found training images without labels; Supervised learns from labels alone: give --data with labels, "
                "such as CuratedImages, or another --model"
            )
        if highest >= self.num_classes:
            raise UsageError(
                f"found the label {highest} among the training images and num_classes={self.num_classes}; expected "
                f"labels below it: give --model.num_classes {highest + 1}"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Float[Tensor, "..."]]:
        """Cross-entropy of the first view to the image's label, right or wrong."""
        features = self(batch.views[0])
        logits = self.head(features)
        labels = batch.label
        if self.label_noise > 0:
            labels = noisy_labels(labels, batch.index, self.label_noise, self.num_classes, data_of(self.trainer).seed)
        loss = pseudo_label_loss([logits], labels.unsqueeze(1))
        return {"loss": loss, "embeddings": features.detach(), "scores": logits.detach()}

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        suggestion = "a lower --model.optimizer.lr"
        if self.label_noise > 0:
            suggestion = f"{suggestion}, or a lower --model.label_noise (now {self.label_noise:g})"
        return [*super().failures(), stuck_at_chance(suggestion)]


def noisy_labels(
    labels: Int[Tensor, "B"], rows: Int[Tensor, "B"], noise: float, num_classes: int, seed: int
) -> Int[Tensor, "B"]:
    """Labels of which a share is replaced, uniformly over all classes: a function of (seed, row) alone.

    The rows replaced at one noise are among those replaced at any higher one, and by the same classes. An image
    without a label stays unlabelled.

    Args:
        labels: Classes 0 to C - 1, `UNLABELLED` for none.
        rows: Row of each in the training set.
        noise: Share that is replaced.
        num_classes: C.
        seed: The data's.

    Returns:
        Labels on the device of `labels`.
    """
    sampled = uniform(seed, Purpose.LABEL_NOISE, 0, rows.to(labels.device), count=2)  # [B, 2]
    classes = (sampled[:, 1].double() * num_classes).to(labels.dtype)
    replaced = (sampled[:, 0] < noise) & (labels != UNLABELLED)
    return torch.where(replaced, classes, labels)
