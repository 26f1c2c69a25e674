"""Rotation prediction: classify the rotation of an image by multiples of 90 degrees [Gidaris et al. 2018]."""

import math

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ssl_lightning.failures import Failure, stuck_at_chance
from ssl_lightning.functional.pseudo_label import pseudo_label_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.types import Batch

ROTATIONS = 4
"""The classes: 0, 90, 180 and 270 degrees."""


class RotationPrediction(Method):
    """Rotate every image by 0, 90, 180 and 270 degrees; predict the rotation.

    Gidaris, Singh, Komodakis: "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018
    (arXiv 1803.07728). All four copies of an image are in the same batch (section 4.1); the loss is the cross-entropy
    of one linear layer to the four rotations, averaged over rotations and images (equations 1 and 2).

    Note:
        The paper probes the blocks of a network in network and finds the second of four the best. Here any backbone is
        evaluated by its pooled output, which is more specific to the pretext task than earlier layers.

    Args:
        backbone: Description of the network.
        optimizer: The paper on CIFAR-10: SGD, lr 0.1, momentum 0.9 (Nesterov's in its code), weight decay 5e-4.
        schedule: The paper on CIFAR-10: a fifth at epochs 30, 60 and 80 of 100.
        decay_all: Weight decay for biases and normalization layers too.
        preprocessing: Image size and normalization of the run.
    """

    def __init__(
        self,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        ),
        schedule: Schedule | None = None,
        decay_all: bool = True,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        self.head = nn.Linear(self.backbone.num_features, ROTATIONS)
        self.chance_loss = math.log(ROTATIONS)

    def logits(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 4"]:
        """A logit for each rotation of the images as they are."""
        return self.head(self(images))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Float[Tensor, "..."]]:
        """Cross-entropy of all four rotations of the first view."""
        view = batch.views[0]
        rotated = torch.cat([view.rot90(times, dims=(2, 3)) for times in range(ROTATIONS)])  # [4B, 3, h, w]
        rotations = torch.arange(ROTATIONS, device=view.device).repeat_interleave(len(view))  # [4B]
        features = self(rotated)
        logits = self.head(features)
        loss = pseudo_label_loss([logits], rotations.unsqueeze(1))
        # of the unrotated images alone: features that encode the rotation and nothing else would not look collapsed
        return {"loss": loss, "embeddings": features[: len(view)].detach(), "scores": logits.detach()}

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        suggestion = "a lower --model.optimizer.lr, or --data.views without rotations and with larger crops"
        return [*super().failures(), stuck_at_chance(suggestion)]
