"""MoCLR: SimCLR with embeddings of the other view from a running average of the network [Tian et al. 2021]."""

import math
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.contracts import data_of, has_training_data
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, stuck_at_chance
from ssl_lightning.functional.moclr import moclr_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.ema import EmaTeacher
from ssl_lightning.models.heads import Projector
from ssl_lightning.models.layers import at_layer
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import world
from ssl_lightning.types import Batch


class MoCLR(Method):
    """Find the averaged network's embedding of the other view among its embeddings of the whole batch, both ways.

    Tian, Henaff, van den Oord: "Divide and Contrast: Self-supervised Learning from Uncurated Data", ICCV 2021
    (arXiv 2105.08054), section 3.1. SimCLR's contrast with BYOL's second network: embeddings z of the online network,
    z' of its running average, whose momentum rises from `momentum` to 1 over the run. The loss (equation 1) is summed
    over both directions; negatives are the average's embeddings of the other images, without predictor or queue. The
    projector ends in batch normalization (figure 3).

    The average's features are evaluated beside the online ones, as `eval_ema/...`.

    Note:
        The paper states no temperature. Each view passes separately, and the averaged network normalizes by its own
        batches, as in BYOL's code; its running statistics are those of its own passes, averaged with the online
        network's. The sum runs over the images of all processes. With gradient accumulation an image is contrasted
        with those of its micro-batch alone.

    Args:
        backbone: Description of the network.
        optimizer: The paper's is LARS, lr 4.8 at batch 4096 and 0.3 at 256, weight decay 1.5e-6.
        schedule: The paper: ten epochs of warm-up, then a cosine to 0.
        hidden: Widths of the projector's hidden layers.
        projection: D of the embedding.
        projector_norm: Batch normalization in the projector, after its last layer too.
        temperature: tau.
        momentum: tau of the average at the first step; the paper's 0.996.
        decay_all: Weight decay (and adaptation) for biases and normalization layers too; the paper excludes them.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: For a temperature that is not positive or a momentum outside [0, 1].
    """

    min_views = 2
    micro_batch_effect = "images are contrasted with those of their micro-batch alone; raise data.batch_size instead"

    def __init__(
        self,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = LARS,
        schedule: Schedule | None = None,
        hidden: tuple[int, ...] = (4096,),
        projection: int = 256,
        projector_norm: bool = True,
        temperature: float = 0.1,
        momentum: float = 0.996,
        decay_all: bool = False,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        if temperature <= 0:
            raise UsageError(f"found model.temperature={temperature}; expected a positive number")
        width = self.backbone.num_features
        self.projector = Projector(width, list(hidden), projection, projector_norm, last_norm=projector_norm)
        self.teacher = EmaTeacher(nn.Sequential(self.backbone, self.projector), momentum)
        self.temperature = temperature

    def averaged_features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """See `Method.averaged_features`."""
        backbone, projector = self.teacher.network.children()
        return at_layer(layer, backbone(images), projector)

    def on_fit_start(self) -> None:
        """At chance each image is equally near to all images of the batch of all processes, in both directions."""
        if has_training_data(self.trainer):
            self.chance_loss = 2 * math.log(data_of(self.trainer).batch_size)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Contrast of each of the first two views with the average's embedding of the other."""
        first, second = batch.views[:2]
        q1, q2 = self.projector(self(first)), self.projector(self(second))  # [B, D]
        with torch.no_grad():
            k1, k2 = self.teacher(first), self.teacher(second)  # [B, D]
        loss = moclr_loss(q1, q2, k1, k2, self.temperature, world())
        return {"loss": loss, "embeddings": F.normalize(q1.detach().float(), dim=1)}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the average after every step: with tau = momentum after the first, nearly 1 after the last."""
        step, steps = self.trainer.global_step, self.steps()[0]
        super().optimizer_step(*args, **kwargs)
        self.teacher.follow(nn.Sequential(self.backbone, self.projector), step, steps)

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        suggestion = (
            f"a lower --model.optimizer.lr, --model.temperature {self.temperature / 2:g} (now {self.temperature:g}), "
            "or views with a larger scale in data.views"
        )
        return [*super().failures(), stuck_at_chance(suggestion)]
