"""SwAV: predict the balanced code of one view from another [Caron et al. 2020]. SEER is a configuration of it."""

import logging
import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.contracts import data_of
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, queue_blow_up, small_batch, stuck_at_chance, unused_prototypes
from ssl_lightning.functional.sinkhorn import sinkhorn
from ssl_lightning.functional.swapped_prediction import swapped_prediction_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.heads import Projector, Prototypes
from ssl_lightning.models.multi_crop import features_of_views
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.lars import LARC
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import gather_rows, world
from ssl_lightning.sample_state import FeatureQueue
from ssl_lightning.types import Batch

log = logging.getLogger(__name__)

ASSIGNED_VIEWS = 2
"""Codes are computed for the first two views, the global crops; all views predict them."""
COLLAPSES = ("equal_embeddings", "rank_one")
"""Failures of every method that codes of low information lead to."""


class SwAV(Method):
    """Assign two views of each image to equally used prototypes; predict the codes of each view from the others.

    Caron, Misra, Mairal, Goyal, Bojanowski, Joulin: "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", NeurIPS 2020 (arXiv 2006.09882). Scores are cosines of embeddings and prototypes (section 3.1), codes
    the solution of an optimal-transport problem over the batch by Sinkhorn-Knopp (equations 3 to 5), and the loss the
    cross-entropy of each code to the predictions of all other views (equations 2 and 6).

    SEER (Goyal et al. 2021, arXiv 2103.01988) is this method with a RegNetY, a deeper projector, 16,000 prototypes, ten
    iterations and one pass over uncurated images: configs/seer.yaml.

    Note:
        The queue is equal on all processes and each balances its own share of it, so neither codes nor checkpoints
        depend on their number; the original keeps one queue on each process. Its length is exact, where the original
        rounds it down to a multiple of the batch.
        With gradient accumulation each micro-batch is balanced separately.
        Equal shares are a prior that images form clusters of equal sizes, which long-tailed data do not. Assran et al.
        2022 ("The Hidden Uniform Cluster Prior in Self-Supervised Learning", arXiv 2210.07277) replace it by shares
        1/k^p in Masked Siamese Networks; `prior_power` does so in the codes, where VISSL's code for SwAV has it. The
        share belongs to the index of a prototype, as in both. Initial prototypes are random, so that any order of
        shares is as good as another, and sorting them by use would give the next batch another prior than this one.

    Args:
        num_prototypes: K. The paper's 3000; a few times the number of classes suffices.
        backbone: Description of the network.
        optimizer: The paper's is SGD with LARC on all tensors, lr 4.8 at batch 4096 or 0.6 at 256, weight decay 1e-6.
        schedule: The paper: ten epochs of warm-up, then a cosine to a thousandth.
        hidden: Widths of the projector's hidden layers.
        projection: D of the embedding.
        projector_norm: Batch normalization in the projector.
        temperature: tau of the predictions.
        epsilon: Regularization of Sinkhorn; smaller gives harder codes. After a collapse the authors advise 0.03 first.
        sinkhorn_iterations: The paper's 3; SEER's 10.
        prior_power: p of the share 1/k^p of prototype k; 0 for equal shares, more for long-tailed data, such as 0.25.
        freeze_epochs: Epochs in which the prototypes keep their initial values, counted in optimizer steps.
        freeze_steps: The same in optimizer steps, instead of `freeze_epochs`; the released SwAV and SEER have 313.
        queue_length: L, embeddings of earlier batches that codes are balanced with; 0 for none. For batches far below
            K; the paper's 3840.
        queue_start_epoch: The epoch at which the queue starts to fill; it is used once it is full.
        decay_all: Weight decay for biases and normalization layers too, as the paper's code has it.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: For numbers out of range.
    """

    min_views = ASSIGNED_VIEWS
    micro_batch_effect = (
        "Sinkhorn balances each micro-batch separately over all prototypes; raise data.batch_size, or give "
        "--model.queue_length"
    )

    def __init__(
        self,
        num_prototypes: int = 3000,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = LARC,
        schedule: Schedule | None = None,
        hidden: tuple[int, ...] = (2048,),
        projection: int = 128,
        projector_norm: bool = True,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        prior_power: float = 0.0,
        freeze_epochs: float = 1.0,
        freeze_steps: int | None = None,
        queue_length: int = 0,
        queue_start_epoch: float = 15.0,
        decay_all: bool = True,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        _expect(num_prototypes >= 2, "num_prototypes", num_prototypes, "at least 2")
        _expect(temperature > 0, "temperature", temperature, "a positive number")
        _expect(epsilon > 0, "epsilon", epsilon, "a positive number")
        _expect(sinkhorn_iterations >= 1, "sinkhorn_iterations", sinkhorn_iterations, "at least 1")
        least = math.exp(-prior_power * math.log(num_prototypes))  # the last prototype's share of the first one's
        _expect(prior_power >= 0 and least > 1e-30, "prior_power", prior_power, "0 for equal shares, or a few units")
        self.projector = Projector(self.backbone.num_features, list(hidden), projection, projector_norm)
        self.prototypes = Prototypes(num_prototypes, projection)
        self.queue = FeatureQueue(queue_length)
        self.temperature, self.epsilon, self.sinkhorn_iterations = temperature, epsilon, sinkhorn_iterations
        _expect(freeze_epochs >= 0, "freeze_epochs", freeze_epochs, "at least 0")
        _expect(queue_start_epoch >= 0, "queue_start_epoch", queue_start_epoch, "at least 0")
        _expect(freeze_steps is None or freeze_steps >= 0, "freeze_steps", freeze_steps, "at least 0, or null")
        self.prior_power, self.freeze_epochs, self.queue_start_epoch = prior_power, freeze_epochs, queue_start_epoch
        self.freeze_steps = freeze_steps
        self.chance_loss = math.log(num_prototypes)

    def embed_views(self, views: list[Float[Tensor, "B 3 _h _w"]]) -> list[Float[Tensor, "B D"]]:
        """Unit embeddings of each view, in float32: one backbone call for each resolution, one projector call."""
        embeddings = self.projector(features_of_views(self.backbone, views))
        return list(F.normalize(embeddings.float(), dim=1).chunk(len(views)))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Loss of predicting the code of each assigned view from the scores of all other views."""
        embeddings = self.embed_views(batch.views)  # V x [B, D]
        scores = list(self.prototypes(torch.cat(embeddings)).chunk(len(embeddings)))  # V x [B, K]
        codes = self.codes(embeddings[:ASSIGNED_VIEWS], scores[:ASSIGNED_VIEWS])  # 2 x [B, K]
        return {
            "loss": swapped_prediction_loss(scores, codes, self.temperature),
            "embeddings": embeddings[0].detach(),
            "scores": scores[0].detach(),
            "codes": codes[0],
            "rows_per_prototype": self._balanced_rows(len(codes[0])) / codes[0].shape[1],
            "queue_in_use": float(self.queue.is_full),
        }

    @torch.no_grad()
    def codes(
        self, embeddings: list[Float[Tensor, "B D"]], scores: list[Float[Tensor, "B K"]]
    ) -> list[Float[Tensor, "B K"]]:
        """Balanced codes of each assigned view; embeddings join the queue after the codes are made."""
        group, prior = world(), self._prior(scores[0])
        codes = []
        for view, score in enumerate(scores):
            if self.queue.is_full:
                earlier = self._own_share(self.queue.rows[view])
                score = torch.cat([score.detach(), self.prototypes(earlier)])
            balanced = sinkhorn(score.detach(), self.epsilon, self.sinkhorn_iterations, prior, group)
            codes.append(balanced[: len(embeddings[view])])
        if self.queue.length and self.trainer.global_step >= self._in_steps(self.queue_start_epoch):
            self.queue.push(torch.stack([gather_rows(z.detach(), group) for z in embeddings]))
        return codes

    def failures(self) -> list[Failure]:
        """See `Method.failures`; suggestions in the order of the authors' README."""
        k = self.prototypes.weight.shape[0]
        harder = (
            f"--model.epsilon {min(0.03, 0.6 * self.epsilon):.2g} (now {self.epsilon:g}), the authors' first advice"
        )
        longer = f"--model.freeze_epochs {max(1.0, 2 * self.freeze_epochs):g} (now {self.freeze_epochs:g})"
        if self.freeze_steps is not None:
            longer = f"--model.freeze_steps {max(100, 2 * self.freeze_steps)} (now {self.freeze_steps})"
        slower = "a lower --model.optimizer.lr, a longer --model.schedule.warmup_epochs"
        fewer = f"--model.num_prototypes {max(2, k // 4)} (now {k})"
        flatter = (
            f"--model.prior_power {self.prior_power / 2:g} (now {self.prior_power:g}), " if self.prior_power else ""
        )
        later = f"--model.queue_start_epoch {2 * self.queue_start_epoch + 5:g} (now {self.queue_start_epoch:g})"
        milder = f"{harder}; then {longer}, {slower}, or views with a larger scale in data.views"
        return [
            *(_with(failure, harder) for failure in super().failures()),
            # random prototypes are not spread evenly, so equal embeddings have a loss above ln K
            stuck_at_chance(milder, high=math.inf),
            unused_prototypes(f"{flatter}{harder}; then {fewer}, {slower}, or {longer}"),
            small_batch(f"a larger --data.batch_size, --model.queue_length {4 * k // 3}, or {fewer}"),
            queue_blow_up(
                f"{later}, when embeddings change more slowly, or a shorter --model.queue_length (now "
                f"{self.queue.length})"
            ),
        ]

    def on_fit_start(self) -> None:
        """Warn of a run that is too short for the prototypes or the queue."""
        if not any(bound and bound > 0 for bound in (self.trainer.max_epochs, self.trainer.max_steps)):
            return
        steps, per_epoch = self.steps()
        if steps <= self._frozen_steps:
            option = f"freeze_epochs {self.freeze_epochs:g} of {per_epoch} steps"
            if self.freeze_steps is not None:
                option = f"freeze_steps {self.freeze_steps}"
            log.warning(
                f"prototypes keep their initial values in all of {steps} steps: train for longer than "
                f"--model.{option}, or give a smaller one"
            )
        filled = -(-self.queue.length // (data_of(self.trainer).batch_size * self.trainer.accumulate_grad_batches))
        if self.queue.length and steps <= self._in_steps(self.queue_start_epoch) + filled:
            log.warning(
                f"the queue is not used in {steps} steps: it takes {filled} to fill after --model.queue_start_epoch "
                f"{self.queue_start_epoch:g} of {per_epoch} steps; give a smaller one or a shorter --model.queue_length"
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Remove the gradient of frozen prototypes, so that neither weight decay nor momentum changes them."""
        if self.trainer.global_step < self._frozen_steps:
            self.prototypes.weight.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Normalize the prototypes after every update."""
        super().optimizer_step(*args, **kwargs)
        if self.prototypes.weight.grad is not None:
            self.prototypes.normalize_()

    def _balanced_rows(self, batch_size: int) -> int:
        """Images of all processes that are balanced at a time once the queue is in use."""
        return batch_size * self.trainer.world_size + self.queue.length

    @property
    def _frozen_steps(self) -> int:
        return self._in_steps(self.freeze_epochs) if self.freeze_steps is None else self.freeze_steps

    def _in_steps(self, epochs: float) -> int:
        return round(epochs * self.steps_per_epoch)

    def _prior(self, scores: Float[Tensor, "B K"]) -> Float[Tensor, "K"] | None:
        if self.prior_power == 0:
            return None
        return torch.arange(1, scores.shape[1] + 1, device=scores.device, dtype=torch.float32) ** -self.prior_power

    @staticmethod
    def _own_share(rows: Float[Tensor, "L D"]) -> Float[Tensor, "M D"]:
        """This process's share of the queue, which all processes balance together."""
        group = world()
        if group is None:
            return rows
        rank, size = group.rank(), group.size()
        return rows[len(rows) * rank // size : len(rows) * (rank + 1) // size]


def _expect(holds: bool, name: str, found: object, what: str) -> None:
    if not holds:
        raise UsageError(f"found model.{name}={found}; expected {what}")


def _with(failure: Failure, first: str) -> Failure:
    """A failure of collapse gets a further suggestion before its own."""
    return replace(failure, suggestion=f"{first}; then {failure.suggestion}") if failure.name in COLLAPSES else failure
