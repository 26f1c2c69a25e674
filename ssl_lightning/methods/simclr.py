"""SimCLR: find the other view of an image among the views of a whole batch [Chen et al. 2020]."""

import math
from typing import Any, Protocol, cast, runtime_checkable

from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, stuck_at_chance
from ssl_lightning.functional.nt_xent import nt_xent_loss
from ssl_lightning.methods.method import RGB, Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.heads import Projector
from ssl_lightning.models.layers import ENCODER_LAYERS, features_at
from ssl_lightning.models.multi_crop import features_of_views
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import world
from ssl_lightning.types import Batch


@runtime_checkable
class KnowsItsBatch(Protocol):
    """What the loss at chance needs of the data."""

    batch_size: int


class SimCLR(Method):
    """Two views of each image through one network; each view finds its partner among all other views of the batch.

    Chen, Kornblith, Norouzi, Hinton: "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020
    (arXiv 2002.05709). Algorithm 1: features h of the backbone, embeddings z of a small projector, and the normalized,
    temperature-scaled cross-entropy over 2B views (equation 1). The projector is thrown away afterwards.

    Note:
        The projector has batch normalization before its ReLU; the released code has it after the last layer too, the
        paper's formula has none. The sum runs over the views of all processes. With gradient accumulation the views of
        a micro-batch are told apart among themselves.

    Args:
        backbone: Description of the network.
        optimizer: The paper's is LARS, lr 4.8 at batch 4096 and 0.3 at 256, weight decay 1e-6.
        schedule: The paper: ten epochs of warm-up, then a cosine to 0.
        hidden: Widths of the projector's hidden layers; the paper's 2048 is the width of ResNet-50's features.
        projection: D of the embedding.
        projector_norm: Batch normalization in the projector.
        temperature: tau.
        decay_all: Weight decay (and adaptation) for biases and normalization layers too; the paper leaves them out.
        image_size: Side of the images of the run, in pixels.
        mean: Mean of the images' channels as fractions 0..1.
        std: Their standard deviation.

    Raises:
        ValueError: If the temperature is not positive.
    """

    min_views = 2
    micro_batch_effect = "images are told from those of their micro-batch alone; raise data.batch_size instead"

    def __init__(
        self,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = LARS,
        schedule: Schedule | None = None,
        hidden: tuple[int, ...] = (2048,),
        projection: int = 128,
        projector_norm: bool = True,
        temperature: float = 0.1,
        decay_all: bool = False,
        image_size: int = 32,
        mean: RGB = (0.5, 0.5, 0.5),
        std: RGB = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(backbone, optimizer, schedule, image_size, mean, std, decay_all=decay_all)
        if temperature <= 0:
            raise UsageError(f"found model.temperature={temperature}; expected a positive number")
        self.projector = Projector(self.backbone.num_features, list(hidden), projection, projector_norm)
        self.temperature = temperature

    @property
    def layers(self) -> tuple[str, ...]:
        """See `Method.layers`."""
        return ENCODER_LAYERS

    def features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """See `Method.features`."""
        return features_at(layer, self.backbone, self.projector, images)

    def on_fit_start(self) -> None:
        """At chance each view is equally near to all others of the batch of all processes."""
        data = cast(KnowsItsBatch, self.trainer.datamodule)  # type: ignore[attr-defined]  # Lightning sets it
        self.chance_loss = math.log(2 * data.batch_size - 1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """How well each of the first two views finds the other."""
        z1, z2 = self.projector(features_of_views(self.backbone, batch.views[:2])).chunk(2)  # [B, D] each
        loss = nt_xent_loss(z1, z2, self.temperature, world())
        return {"loss": loss, "embeddings": F.normalize(z1.detach().float(), dim=1)}

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        suggestion = (
            f"a lower --model.optimizer.lr, --model.temperature {self.temperature / 2:g} (now {self.temperature:g}), "
            "or views with a larger scale in data.views"
        )
        return [*super().failures(), stuck_at_chance(suggestion)]
