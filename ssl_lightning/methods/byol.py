"""BYOL: predict the averaged network's embedding of the other view, without negatives [Grill et al. 2020]."""

from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.functional.byol import byol_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.ema import EmaTeacher
from ssl_lightning.models.heads import Projector
from ssl_lightning.models.layers import at_layer
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.types import Batch


class BYOL(Method):
    """Predict from one view the embedding of the other by a network that follows this one as a running average.

    Grill et al.: "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", NeurIPS 2020
    (arXiv 2006.07733). The online network is a backbone, a projector and a predictor; the target network is the
    running average of the first two, whose momentum rises from `momentum` to 1 over the run. The loss is the squared
    distance of the unit prediction to the unit target (equation 2), summed over both directions. No term of the loss
    pushes images apart: only the predictor and the average prevent collapse.

    The target's features are evaluated beside the online ones, as `eval_ema/...`.

    Note:
        Each view passes separately, and the target network normalizes by its own batches, as in the authors' code. Its
        running statistics are those of its own passes, averaged with the online network's; in the authors' code they
        are not averaged.

    Args:
        backbone: Description of the network.
        optimizer: The paper's is LARS, lr 3.2 at batch 4096 and 0.2 at 256, weight decay 1.5e-6.
        schedule: The paper: ten epochs of warm-up, then a cosine to 0.
        hidden: Widths of the projector's hidden layers.
        projection: D of the embedding.
        predictor_hidden: Widths of the predictor's hidden layers.
        projector_norm: Batch normalization in projector and predictor.
        momentum: tau of the average at the first step: the paper's 0.996, 0.99 for 300 epochs and fewer.
        decay_all: Weight decay (and adaptation) for biases and normalization layers too; the paper excludes them.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: For a momentum outside [0, 1].
    """

    min_views = 2

    def __init__(
        self,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = LARS,
        schedule: Schedule | None = None,
        hidden: tuple[int, ...] = (4096,),
        projection: int = 256,
        predictor_hidden: tuple[int, ...] = (4096,),
        projector_norm: bool = True,
        momentum: float = 0.996,
        decay_all: bool = False,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        self.projector = Projector(self.backbone.num_features, list(hidden), projection, projector_norm)
        self.predictor = Projector(projection, list(predictor_hidden), projection, projector_norm)
        self.teacher = EmaTeacher(nn.Sequential(self.backbone, self.projector), momentum)

    def averaged_features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """See `Method.averaged_features`."""
        backbone, projector = self.teacher.network.children()
        return at_layer(layer, backbone(images), projector)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Distance of the predictions from the first two views to the target's embeddings of the other one."""
        first, second = batch.views[:2]
        z1, z2 = self.projector(self(first)), self.projector(self(second))  # [B, D]
        with torch.no_grad():
            k1, k2 = self.teacher(first), self.teacher(second)  # [B, D]
        loss = byol_loss(self.predictor(z1), self.predictor(z2), k1, k2)
        return {"loss": loss, "embeddings": F.normalize(z1.detach().float(), dim=1)}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the target after every step: with tau = momentum after the first, nearly 1 after the last."""
        step, steps = self.trainer.global_step, self.steps()[0]
        super().optimizer_step(*args, **kwargs)
        self.teacher.follow(nn.Sequential(self.backbone, self.projector), step, steps)
