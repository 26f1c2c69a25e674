"""Instance recognition: every image is a class of its own, kept in a memory bank [Wu et al. 2018]."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.contracts import data_of
from ssl_lightning.counter_rng import Purpose, number, uniform
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, stuck_at_chance
from ssl_lightning.functional.instance import estimate_partition, instance_loss, nce_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import gather_rows, world
from ssl_lightning.sample_state import FeatureBank
from ssl_lightning.types import Batch


class InstanceRecognition(Method):
    """Discriminate every image from all others by a memory bank of their last embeddings.

    Wu, Xiong, Yu, Lin: "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018
    (arXiv 1805.01978). One view of each image; a linear layer to a unit embedding v; cross-entropy of v to its own row
    of the memory bank M among all rows (equation 2), or its noise-contrastive estimate over `negatives` random rows
    (equations 5 to 7). After the step the row becomes normalize(m M_i + (1 - m) v_i).

    Note:
        The bank starts with random unit vectors; public code samples them uniformly from a cube and does not always
        normalize them. The paper's proximal term (equation 9), which its released code leaves out, is left out. Z of
        the noise-contrastive estimate is computed from the first step's batch and the whole bank; the original takes
        its negatives alone.

    Args:
        backbone: Description of the network.
        optimizer: The paper: SGD, lr 0.03, momentum 0.9, weight decay 1e-4 (5e-4 on CIFAR-10).
        schedule: The paper: a tenth at epochs 120 and 160 of 200.
        projection: D of the embedding.
        temperature: tau; the paper's 0.07, 0.1 on CIFAR-10.
        momentum: m of the memory bank.
        negatives: Random rows for each image, 4096 in the paper; 0 compares with all, which is exact and cheap up to
            some hundred thousand images.
        decay_all: Weight decay for biases and normalization layers too.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: For numbers out of range.
    """

    per_sample_buffers = ("partition",)
    partition: Float[Tensor, ""]

    def __init__(
        self,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9, weight_decay=5e-4),
        schedule: Schedule | None = None,
        projection: int = 128,
        temperature: float = 0.1,
        momentum: float = 0.5,
        negatives: int = 0,
        decay_all: bool = True,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        if temperature <= 0 or negatives < 0 or projection < 1:
            raise UsageError(
                f"found temperature={temperature}, negatives={negatives}, projection={projection}; expected a positive "
                "temperature, 0 or more negatives and at least 1 dimension"
            )
        self.projector = nn.Linear(self.backbone.num_features, projection)
        self.bank = FeatureBank(momentum)
        self.temperature, self.negatives = temperature, negatives
        self.register_buffer("partition", torch.zeros(()))  # Z; 0 until the first step
        self._last_embeddings: tuple[Tensor, Tensor] | None = None

    def on_fit_start(self) -> None:
        """Initialize the bank with random unit vectors, unless it comes from a checkpoint."""
        data = data_of(self.trainer)
        if self.bank.is_empty:
            self.bank.initialize(data.num_samples, self.projector.out_features, number(data.seed, Purpose.BANK))
        self.chance_loss = None if self.negatives else math.log(data.num_samples)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Cross-entropy of each image to its own row."""
        z = F.normalize(self.projector(self(batch.views[0])).float(), dim=1)  # [B, D]
        index = batch.index.to(z.device)
        self._last_embeddings = index, z.detach()
        loss = self._noise_contrastive(z, index) if self.negatives else self._exact(z, index)
        return {"loss": loss, "embeddings": z.detach()}

    def on_after_backward(self) -> None:
        """Write the embeddings of this step into the bank."""
        assert self._last_embeddings is not None
        index, z = self._last_embeddings
        self.bank.write(gather_rows(index, world()), gather_rows(z, world()))
        self._last_embeddings = None

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        slower = "a lower --model.optimizer.lr"
        return [*super().failures(), stuck_at_chance(f"{slower}, or --model.temperature {self.temperature / 2:g}")]

    def _exact(self, z: Float[Tensor, "B D"], index: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        return instance_loss(z, index, self.bank.rows, self.temperature)

    def _noise_contrastive(self, z: Float[Tensor, "B D"], index: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        bank = self.bank.rows
        if self.partition == 0:
            estimates = gather_rows(estimate_partition(z.detach(), bank, self.temperature).reshape(1), world())
            self.partition.copy_(estimates.mean())
        seed = data_of(self.trainer).seed
        sampled = uniform(seed, Purpose.NEGATIVES, self.trainer.global_step, index, count=self.negatives)
        rows = (sampled.double() * len(bank)).long()
        return nce_loss(z, index, rows, bank, self.temperature, float(self.partition))
