"""Rotation prediction: by how many quarter turns was an image turned? [Gidaris et al. 2018]."""

import math

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from ssl_lightning.failures import Failure, stuck_at_chance
from ssl_lightning.functional.pseudo_label import pseudo_label_loss
from ssl_lightning.methods.method import RGB, Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.types import Batch

TURNS = 4
"""Quarter turns, none among them: the classes."""


class RotationPrediction(Method):
    """Show every image in all four rotations, learn to tell which is which.

    Gidaris, Singh, Komodakis: "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018
    (arXiv 1803.07728). All four copies of an image are in the same batch (section 4.1); the loss is the cross-entropy
    of one linear layer to the four turns, averaged over turns and images (equations 1 and 2).

    Note:
        The paper probes the blocks of a network in network and finds the second of four the best. Here any backbone is
        evaluated by its pooled output, which has more of the pretext task in it than earlier layers have.

    Args:
        backbone: Description of the network.
        optimizer: The paper on CIFAR-10: SGD, lr 0.1, momentum 0.9 (Nesterov's in its code), weight decay 5e-4.
        schedule: The paper on CIFAR-10: a fifth at epochs 30, 60 and 80 of 100.
        decay_all: Weight decay for biases and normalization layers too.
        image_size: Side of the images of the run, in pixels.
        mean: Mean of the images' channels as fractions 0..1.
        std: Their standard deviation.
    """

    def __init__(
        self,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        ),
        schedule: Schedule | None = None,
        decay_all: bool = True,
        image_size: int = 32,
        mean: RGB = (0.5, 0.5, 0.5),
        std: RGB = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(backbone, optimizer, schedule, image_size, mean, std, decay_all=decay_all)
        self.head = nn.Linear(self.backbone.num_features, TURNS)
        self.chance_loss = math.log(TURNS)

    def logits(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 4"]:
        """One logit a turn of images as they are."""
        return self.head(self(images))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Float[Tensor, "..."]]:
        """Cross-entropy of all four rotations of the first view to their turns."""
        view = batch.views[0]
        turned = torch.cat([view.rot90(turns, dims=(2, 3)) for turns in range(TURNS)])  # [4B, 3, h, w]
        turns = torch.arange(TURNS, device=view.device).repeat_interleave(len(view))  # [4B]
        features = self(turned)
        logits = self.head(features)
        loss = pseudo_label_loss([logits], turns.unsqueeze(1))
        # those of the images as they are: features that told turns apart and no images would look spread
        return {"loss": loss, "embeddings": features[: len(view)].detach(), "scores": logits.detach()}

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        suggestion = (
            "a lower --model.optimizer.lr, or --data.views that neither turn images nor hide what is up in them"
        )
        return [*super().failures(), stuck_at_chance(suggestion)]
