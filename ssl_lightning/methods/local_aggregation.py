"""Local Aggregation: close neighbors against background neighbors in a memory bank [Zhuang et al. 2019]."""

import logging
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.checkpoints.load import load_model
from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.contracts import TrainingData, data_of, has_training_data
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, one_cluster
from ssl_lightning.functional.instance import instance_loss
from ssl_lightning.functional.local_aggregation import Neighbors, local_aggregation_loss, neighbors
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.multi_crop import features_of_views
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import gather_rows, world
from ssl_lightning.sample_state import FeatureBank, PseudoLabels
from ssl_lightning.types import Batch

log = logging.getLogger(__name__)


class LocalAggregation(Method):
    """Move each image toward its close neighbors, in contrast to its background neighbors.

    Zhuang, Zhai, Yamins: "Local Aggregation for Unsupervised Learning of Visual Embeddings", ICCV 2019 (arXiv
    1903.12355). A memory bank M holds a running average of every image's unit embedding v. At the start of every epoch
    `Recluster` runs k-means on the bank H times; the close neighbors of an image are the rows that share a cluster with
    it in any of them, its background neighbors the k rows nearest to it. The loss is -log of the share of the
    background's probability that the close ones have (equation 4). After the step the image's row becomes
    normalize(m M_i + (1 - m) v_i).

    It starts from instance recognition: from a checkpoint of it (`warm_start`), or from `warmup_epochs` of it in the
    same run. The state of the optimizer is dropped at the first clusters.

    Note:
        Clusterings start from rows that are a function of (seed, epoch, h); the original's start from the same rows in
        every epoch. Public PyTorch code clusters when a batch's number equals N // B, which never happens where B
        divides N, and starts with clusters of one image each; here every epoch has clusters of its own, the first one
        too. With neither `warm_start` nor `warmup_epochs` the bank starts with the untrained network's embeddings.

    Args:
        num_clusters: m of each clustering; the paper's 30,000 for a ResNet, about 43 images each. N/50 at 32 px.
        num_heads: H, clusterings with different starts; the paper's 10 for a ResNet.
        num_neighbors: k, the background neighbors; the paper's 4096.
        warm_start: Checkpoint of an `InstanceRecognition` or `LocalAggregation` run on the same images, whose network
            and memory bank this one starts from.
        warmup_epochs: Epochs of instance recognition before the first clustering; the paper's 10.
        backbone: Description of the network.
        optimizer: The paper: SGD, lr 0.03, momentum 0.9, weight decay 1e-4.
        schedule: The paper: a tenth at epochs 160 and 187 of 200 for ResNet-18.
        projection: D of the embedding.
        temperature: tau; the paper's 0.07.
        momentum: m of the memory bank.
        decay_all: Weight decay for biases and normalization layers too; False as in the paper's code.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: For numbers out of range; in `setup`, for more neighbors or clusters than images, or a
            `warm_start` that does not fit.
    """

    def __init__(
        self,
        num_clusters: int = 1000,
        num_heads: int = 3,
        num_neighbors: int = 1024,
        warm_start: str | None = None,
        warmup_epochs: int = 0,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9, weight_decay=5e-4),
        schedule: Schedule | None = None,
        projection: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
        decay_all: bool = False,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        if min(num_clusters, num_heads, num_neighbors, projection) < 1 or temperature <= 0 or warmup_epochs < 0:
            raise UsageError(
                f"found num_clusters={num_clusters}, num_heads={num_heads}, num_neighbors={num_neighbors}, "
                f"projection={projection}, temperature={temperature}, warmup_epochs={warmup_epochs}; expected at least "
                "1 of each, a positive temperature and 0 or more epochs"
            )
        self.num_clusters, self.num_heads, self.num_neighbors = num_clusters, num_heads, num_neighbors
        self.warm_start, self.warmup_epochs, self.temperature = warm_start, warmup_epochs, temperature
        self.projector = nn.Linear(self.backbone.num_features, projection)
        self.bank = FeatureBank(momentum)
        self.pseudo_labels = PseudoLabels()
        self._last_embeddings: tuple[Tensor, Tensor] | None = None

    def embed_views(self, views: list[Float[Tensor, "B 3 _h _w"]]) -> list[Float[Tensor, "B D"]]:
        """Unit embeddings of each view, to fill the bank where there was no warm-up."""
        return list(self._unit(features_of_views(self.backbone, views)).chunk(len(views)))

    def stage_files(self) -> dict[str, str]:
        """See `Method.stage_files`."""
        return {"warm_start": self.warm_start} if self.warm_start else {}

    def setup(self, stage: str) -> None:
        """See `Method.setup`; a new network starts from `warm_start`."""
        super().setup(stage)
        if stage != "fit" and stage != "validate":
            return
        if self.warm_start and self.bank.is_empty and has_training_data(self.trainer):
            self._start_from(self.warm_start, data_of(self.trainer))

    def reject_few(self, num_samples: int) -> None:
        """See `Method.reject_few`; fewer images than background neighbors are rejected too."""
        super().reject_few(num_samples)
        if self.num_neighbors > num_samples:
            raise UsageError(
                f"found num_neighbors={self.num_neighbors} for {num_samples} images; expected at most as many: lower "
                "--model.num_neighbors"
            )

    def on_fit_start(self) -> None:
        """Initialize the bank with random unit rows, unless it comes from a checkpoint."""
        data = data_of(self.trainer)
        if self.bank.is_empty:
            self.bank.initialize(data.num_samples, self.projector.out_features, number(data.seed, Purpose.BANK))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The local aggregation loss; that of instance recognition during warm-up."""
        z, index = self._unit(self(batch.views[0])), batch.index.to(self.device)
        self._last_embeddings = index, z.detach()
        bank, tau = self.bank.rows, self.temperature
        # not in a hook at an epoch's start, which a run that is resumed within an epoch does not call
        self.chance_loss = math.log(len(bank)) if self._is_warming_up else None
        if self._is_warming_up:
            loss = instance_loss(z, index, bank, tau)
        else:
            loss = local_aggregation_loss(z, index, bank, self.pseudo_labels.all_rows(), self.num_neighbors, tau)
        return {"loss": loss, "embeddings": z.detach()}

    def on_after_backward(self) -> None:
        """Write the embeddings of this step into the bank."""
        assert self._last_embeddings is not None
        index, z = self._last_embeddings
        self.bank.write(gather_rows(index, world()), gather_rows(z, world()))
        self._last_embeddings = None

    def clustered_banks(self) -> list[FeatureBank]:
        """The memory bank."""
        return [self.bank]

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Set the close neighbors; the first clusters drop the optimizer state of the warm-up."""
        if self.pseudo_labels.is_empty:
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()
        self.pseudo_labels.assign(clusterings)

    @property
    def has_neighbors(self) -> bool:
        """Whether there are clusters yet."""
        return not self.pseudo_labels.is_empty

    def neighbors(self, index: Int[Tensor, "B"]) -> Neighbors:
        """Background and close neighbors of some rows, in the bank as it is now."""
        index = index.to(self.bank.rows.device)
        scores = self.bank.rows[index] @ self.bank.rows.T
        return neighbors(scores, index, self.pseudo_labels.all_rows(), self.num_neighbors)

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        more = f"--model.num_clusters {2 * (self.num_clusters or 1)} (now {self.num_clusters})"
        return [*super().failures(), one_cluster(f"more epochs of --model.warmup_epochs, or {more}")]

    @property
    def _is_warming_up(self) -> bool:
        return self.trainer.current_epoch < self.warmup_epochs

    def _unit(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        return F.normalize(self.projector(features).float(), dim=1)

    def _start_from(self, path: str, data: TrainingData) -> None:
        """Load network and memory bank of another run on the same images.

        Raises:
            UsageError: For a checkpoint without a bank, of other images, or of a network of another shape.
        """
        earlier = load_model(path)
        if not isinstance(getattr(earlier, "bank", None), FeatureBank):
            raise UsageError(
                f"found --model.warm_start {path} of a {type(earlier).__name__}, which has no memory bank; expected "
                "a checkpoint of InstanceRecognition or LocalAggregation"
            )
        if (
            earlier.data_fingerprint not in ("", data.fingerprint_as(earlier.data_fingerprint))
            or len(earlier.bank.rows) != data.num_samples
        ):
            raise UsageError(
                f"found --model.warm_start {path} with a memory bank of {len(earlier.bank.rows)} other images than the "
                f"{data.num_samples} of this run; expected a checkpoint trained on the same data"
            )
        for name in ("backbone", "projector"):
            try:
                getattr(self, name).load_state_dict(getattr(earlier, name).state_dict())
            except RuntimeError as error:
                first = " ".join(str(error).split())[:200]
                raise UsageError(f"found a {name} in {path} that is not the one of this run: {first}") from error
        self.bank.set_extra_state(earlier.bank.get_extra_state())
        log.info("starting from the network and the memory bank of %s", path)
