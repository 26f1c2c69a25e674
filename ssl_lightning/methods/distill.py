"""Distill: one network learns from a base and from experts of the clusters; stage 4 of Divide and Contrast."""

import logging
from dataclasses import replace
from time import monotonic
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.contracts import data_of
from ssl_lightning.counter_rng import Purpose, separate_rng
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure
from ssl_lightning.functional.distillation import distillation_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.methods.partition import read_clusters, reject_other_experts
from ssl_lightning.methods.teachers import embedding_network, megabytes, read_teacher, seconds
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.experts import Experts
from ssl_lightning.models.heads import Projector
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import scatter_rows, world
from ssl_lightning.sample_state import PseudoLabels
from ssl_lightning.types import UNLABELLED, Batch, Weights

log = logging.getLogger(__name__)

Targets = tuple[Float[Tensor, "B E"], Float[Tensor, "B D"]]
"""Embeddings of each image by the base and by the expert of its cluster."""


class Distill(Method):
    """Predict the embeddings of the same view by the base and by the expert of the image's cluster.

    Tian, Henaff, van den Oord: "Divide and Contrast: Self-supervised Learning from Uncurated Data", ICCV 2021
    (arXiv 2105.08054), section 3.3. Stage 1 trains a base on all images, stage 2 clusters its features into K clusters,
    stage 3 trains an expert on each cluster; this is the fourth. K + 1 regressors take the student's embedding z as
    input: r_b for the base, r_k for each expert. For an image of cluster k the loss is, averaged over views,
    1/2 |r_b(z) - t_b|^2 + 1/2 |r_k(z) - t_k|^2 with the teachers' unit embeddings t. Predictions are not normalized.
    Projector and regressors are discarded afterwards. The initial weights come from a random stream of their own:
    otherwise they would equal those of a base or an expert of the same seed and architecture.

    Teachers are no submodules: they are read from their files when training starts, are neither optimized nor saved,
    and a finished run is loaded without them. Each image passes through two of them, for any K.

    Note:
        The paper does not state whether a teacher's online or averaged weights are regressed, nor how it normalizes:
        here the online ones unless `teacher_weights` is "ema", with running statistics. Each view passes the student
        separately. Every regressor takes the whole batch as input, so that its batch normalization does not depend on
        the number of images of its cluster; gradient reaches the weights of the regressors of the base and of the
        image's own cluster alone. The output of the regressors is divided by sqrt(D), for targets of length one: with
        torch's default initialization predictions are sqrt(D / 6) times as long, and a step of Adam, which moves every
        weight of their last layers as far, is longer than the targets, so that training diverges. Images that the
        second stage could not read have no cluster and are learned from the base only.

    Args:
        base: Checkpoint of the first stage: any method with a projector of several layers, such as MoCLR.
        experts: Checkpoints of the third stage, one for each cluster, in the order of the clusters.
        clusters: The second stage's file, `<path>.safetensors`, made for the images of this run.
        backbone: Description of the network; it may differ from the teachers'.
        optimizer: The paper's is LARS, lr 4.8 at batch 4096 and 0.3 at 256, weight decay 1.5e-6; for fewer than 300
            epochs a higher one (table 18).
        schedule: The paper: ten epochs of warm-up, then a cosine to 0.
        hidden: Widths of the hidden layers of projector and regressors.
        projection: D of the embedding, equal to that of the experts.
        base_projection: Width of the base's embedding, where it differs.
        projector_norm: Batch normalization in projector and regressors, after the projector's last layer too.
        learn_from: "both"; "base" or "experts" alone are the paper's controls (table 11): the other half of the loss is
            0, and its teachers are not evaluated.
        teacher_weights: "ema" to regress the averaged weights of teachers that keep them.
        cached: Embed the center view of each image with the teachers once when training starts, and drop them: the
            paper's cheaper option (75.6 against 75.8 % on ImageNet). Takes 8 N D bytes on each process.
        vectorized: All experts in one pass, each cluster padded to the largest of the batch, instead of one after the
            other; for experts of one architecture. The losses are the same, the time is not: `models.Experts`.
        decay_all: Weight decay (and adaptation) for biases and normalization layers too; the paper excludes them.
        preprocessing: Image size and normalization of the run, equal to the teachers'.

    Raises:
        UsageError: For no experts; in `setup`, if a file is missing or damaged, the clusters were made for other
            images or are not as many as the experts, an expert was trained on another cluster, or a teacher has no
            projector, or embeddings of another width.
    """

    def __init__(
        self,
        base: str,
        experts: list[str],
        clusters: str,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = LARS,
        schedule: Schedule | None = None,
        hidden: tuple[int, ...] = (4096,),
        projection: int = 256,
        base_projection: int | None = None,
        projector_norm: bool = True,
        learn_from: Literal["both", "base", "experts"] = "both",
        teacher_weights: Weights = "online",
        cached: bool = False,
        vectorized: bool = False,
        decay_all: bool = False,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        if not experts:
            raise UsageError("found no experts; expected a checkpoint for each cluster: give --model.experts '[...]'")
        base_projection = base_projection or projection
        with separate_rng(Purpose.STUDENT):
            super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
            width = self.backbone.num_features
            self.projector = Projector(width, list(hidden), projection, projector_norm, last_norm=projector_norm)
            widths = [base_projection, *[projection] * len(experts)]  # of the teachers' embeddings
            regressors = [
                Projector(projection, list(hidden), target, projector_norm, scale=target**-0.5) for target in widths
            ]
        self.base_regressor, self.expert_regressors = regressors[0], nn.ModuleList(regressors[1:])
        self.base, self.experts, self.clusters = base, experts, clusters
        self.teacher_weights: Weights = teacher_weights
        self.learn_from, self.cached, self.vectorized = learn_from, cached, vectorized
        self.projection, self.base_projection = projection, base_projection
        self.num_clusters, self.pseudo_labels = len(experts), PseudoLabels()
        # in a list, which hides them from torch: neither optimizers nor checkpoints nor train() reach them
        self._teachers: list[nn.Module] = []
        self._center_targets: Targets | None = None

    def stage_files(self) -> dict[str, str]:
        """See `Method.stage_files`."""
        experts = {f"experts.{k}": path for k, path in enumerate(self.experts)}
        return {"base": self.base, "clusters": self.clusters} | experts

    def setup(self, stage: str) -> None:
        """See `Method.setup`; read the clusters and the teachers."""
        super().setup(stage)
        if stage != "fit":
            return
        data = data_of(self.trainer)
        clustering = read_clusters(self.clusters, len(self.experts), data)
        self.pseudo_labels.assign([clustering])
        base = read_teacher(self.base, "base", self)
        experts = [read_teacher(path, "experts", self) for path in self.experts]
        trained_on = [expert.data_fingerprint for expert in experts]
        reject_other_experts(self.experts, trained_on, self.clusters, clustering.labels, data)
        weights = self.teacher_weights
        of_base = embedding_network(self.base, base, weights, self.base_projection, "base_projection")
        of_experts = [
            embedding_network(path, expert, weights, self.projection, "projection")
            for path, expert in zip(self.experts, experts, strict=True)
        ]
        self._teachers = [of_base.eval(), Experts(of_experts, self.vectorized)]

    def on_fit_start(self) -> None:
        """Move the teachers to the device of the student; log their cost, or cache their embeddings."""
        for teacher in self._teachers:
            teacher.to(self.device, self._floats)
        time = "" if self.cached else self._time_of_a_view()
        log.info(
            "the base and %d experts take %.0f MB%s beside the student",
            *(len(self.experts), megabytes(self._teachers), time),
        )
        if self.cached:
            log.info("computing the teachers' embeddings of all center views")
            start = monotonic()
            self._center_targets = self._of_center_views()
            self._teachers = []
            log.info("the teachers' embeddings of all center views took %.0f s", monotonic() - start)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Distance of the student's predictions to the embeddings of its two teachers, averaged over the views."""
        clusters = self._clusters(batch.index)
        embedded = [self.projector(self(view)) for view in batch.views]  # V [B, D]
        if self._center_targets is None:
            targets = [self._of_view(view, clusters) for view in batch.views]
        else:
            base, expert = self._center_targets
            targets = [(base[batch.index], expert[batch.index])] * len(batch.views)
        losses = [self._distance(z, target, clusters) for z, target in zip(embedded, targets, strict=True)]
        return {"loss": torch.stack(losses).mean(), "embeddings": F.normalize(embedded[0].detach().float(), dim=1)}

    def failures(self) -> list[Failure]:
        """See `Method.failures`; a student also fails after its teachers."""
        evaluate = f"ssl-lightning validate --config configs/eval.yaml --ckpt_path {self.base}"
        suggestion = f"--model.base and --model.experts that discriminate images ({evaluate} probes one), or "
        inherited = ("equal_embeddings", "rank_one")
        found = super().failures()
        return [replace(one, suggestion=suggestion + one.suggestion) if one.name in inherited else one for one in found]

    def _clusters(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        return self.pseudo_labels[index][:, 0].to(self.device)

    @torch.no_grad()
    def _of_view(self, view: Float[Tensor, "B 3 h w"], clusters: Int[Tensor, "B"]) -> Targets:
        """Embeddings of one view by the base and the own expert; by the first expert for an image without a cluster.

        Zeros of teachers that the student does not learn from.
        """
        base, experts = self._teachers
        if self.learn_from == "base":
            return base(view), view.new_zeros(len(view), self.projection)
        of_expert = experts(view, clusters.clamp(min=0))
        if self.learn_from == "experts":
            return view.new_zeros(len(view), self.base_projection), of_expert
        return base(view), of_expert

    def _time_of_a_view(self) -> str:
        """Time of the teachers for a process's share of a batch, measured once."""
        data, side = data_of(self.trainer), self.preprocessing.image_size
        rows = torch.linspace(0, data.num_samples - 1, max(1, data.batch_size // self.trainer.world_size)).long()
        clusters = self._clusters(rows)  # of the same proportions as in training
        blank = torch.zeros(len(rows), 3, side, side, device=self.device, dtype=self._floats)
        with isolate_rng(), self.trainer.precision_plugin.forward_context():
            taken = seconds(lambda: self._of_view(blank, clusters), self.device)
        return f" and {1000 * taken:.0f} ms for each view of {len(rows)} images"

    def _of_center_views(self) -> Targets:
        """The same of the center views of all images, each process its own; zeros for unreadable images."""
        data, rows, targets = data_of(self.trainer), [], []
        with isolate_rng(), self.trainer.precision_plugin.forward_context():
            for raw in data.predict_dataloader():
                batch = data.center(self.transfer_batch_to_device(raw, self.device, 0))
                rows.append(batch.index)
                targets.append(self._of_view(batch.views[0], self._clusters(batch.index)))
        own, base, expert = torch.cat(rows), *(torch.cat(batches).float() for batches in zip(*targets, strict=True))
        base, expert = (scatter_rows(targets, own, data.num_samples, world()) for targets in (base, expert))
        return base, expert

    def _distance(self, z: Float[Tensor, "B D"], targets: Targets, clusters: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one view with the student's embeddings `z`."""
        own, rows = clusters.clamp(min=0), torch.arange(len(z), device=z.device)
        base_target, expert_target = targets
        of_experts = torch.stack([regressor(z) for regressor in self.expert_regressors])  # [K, B, D]
        has_expert = (clusters != UNLABELLED) & (self.learn_from != "base")  # [B]
        has_base = torch.full_like(has_expert, self.learn_from != "experts")
        return distillation_loss(
            _met_unless(has_base, self.base_regressor(z), base_target),
            _met_unless(has_expert, of_experts[own, rows], expert_target),
            base_target,
            expert_target,
        )

    @property
    def _floats(self) -> torch.dtype:
        return cast(torch.dtype, self.dtype)


def _met_unless(
    learns: Bool[Tensor, "B"], predictions: Float[Tensor, "B D"], targets: Float[Tensor, "B D"]
) -> Float[Tensor, "B D"]:
    """Predictions, or the unit target where nothing is learned: loss and gradients are 0 there, not absent."""
    return torch.where(learns[:, None], predictions.float(), F.normalize(targets.float(), dim=1))
