"""SimCLR: find the other view of an image among the views of a whole batch [Chen et al. 2020]."""

import math
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch.nn import functional as F

from ssl_lightning.contracts import data_of, has_training_data
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, stuck_at_chance
from ssl_lightning.functional.nt_xent import nt_xent_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.heads import Projector
from ssl_lightning.models.multi_crop import features_of_views
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import world
from ssl_lightning.types import Batch


class SimCLR(Method):
    """Two views of each image through one network; each view finds its partner among all other views of the batch.

    Chen, Kornblith, Norouzi, Hinton: "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020
    (arXiv 2002.05709). Algorithm 1: features h of the backbone, embeddings z of a small projector, and the normalized,
    temperature-scaled cross-entropy over 2B views (equation 1). The projector is discarded afterwards.

    Note:
        The projector has batch normalization before its ReLU; the released code has it after the last layer too, the
        paper's formula has none. The sum runs over the views of all processes. With gradient accumulation a view is
        contrasted with those of its micro-batch alone.

    Args:
        backbone: Description of the network.
        optimizer: The paper's is LARS, lr 4.8 at batch 4096 and 0.3 at 256, weight decay 1e-6.
        schedule: The paper: ten epochs of warm-up, then a cosine to 0.
        hidden: Widths of the projector's hidden layers; the paper's 2048 is the width of ResNet-50's features.
        projection: D of the embedding.
        projector_norm: Batch normalization in the projector.
        temperature: tau.
        decay_all: Weight decay (and adaptation) for biases and normalization layers too; the paper excludes them.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: If the temperature is not positive.
    """

    min_views = 2
    micro_batch_effect = "images are contrasted with those of their micro-batch alone; raise data.batch_size instead"

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
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        if temperature <= 0:
            raise UsageError(f"found model.temperature={temperature}; expected a positive number")
        self.projector = Projector(self.backbone.num_features, list(hidden), projection, projector_norm)
        self.temperature = temperature

    def on_fit_start(self) -> None:
        """At chance each view is equally near to all others of the batch of all processes."""
        if has_training_data(self.trainer):
            self.chance_loss = math.log(2 * data_of(self.trainer).batch_size - 1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Contrast of the first two views with each other."""
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
