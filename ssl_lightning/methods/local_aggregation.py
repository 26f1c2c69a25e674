"""Local Aggregation: close neighbors against background neighbors, from a memory [Zhuang et al. 2019]."""

import logging
import math
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.checkpoints.load import load_model
from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.counter_rng import Purpose, number
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, one_cluster
from ssl_lightning.functional.instance import instance_loss
from ssl_lightning.functional.local_aggregation import Neighbors, local_aggregation_loss, neighbors
from ssl_lightning.methods.method import RGB, Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.multi_crop import features_of_views
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import gather_rows, world
from ssl_lightning.sample_state import FeatureBank, PseudoLabels
from ssl_lightning.types import Batch

log = logging.getLogger(__name__)


@runtime_checkable
class KnowsItsRows(Protocol):
    """What the memory needs of the data."""

    seed: int
    num_samples: int

    def fingerprint_as(self, other: str | None) -> str:
        """The fingerprint to compare with one from a file, which may be from before content was read."""
        ...


class LocalAggregation(Method):
    """Bring each image near to its close neighbors, as compared with its background neighbors.

    Zhuang, Zhai, Yamins: "Local Aggregation for Unsupervised Learning of Visual Embeddings", ICCV 2019 (arXiv
    1903.12355). A memory holds a running average of every image's unit embedding. At the start of every epoch
    `Recluster` runs k-means on the memory H times over; the close neighbors of an image are the rows that share a
    cluster with it in any of them, its background neighbors the k rows nearest to it. The loss is -log of the share of
    the background's probability that the close ones have (equation 4). After the step the image's row becomes
    normalize(m M_i + (1 - m) v_i).

    It starts from instance recognition: from a checkpoint of it (`warm_start`), or from `warmup_epochs` of it in the
    same run. The optimizer starts afresh with the first clusters.

    Note:
        Clusterings start from rows that are a function of (seed, epoch, h); the original's begin at the same rows in
        every epoch. Public PyTorch code clusters when a batch's number equals N // B, which never happens where B
        divides N, and begins with clusters of one image each; here every epoch has clusters of its own, the first one
        too. With neither `warm_start` nor `warmup_epochs` the memory begins with the untrained network's embeddings.

    Args:
        num_clusters: m of each clustering; the paper's 30,000 for a ResNet, about 43 images each. N/50 at 32 px.
        num_heads: H, clusterings with different starts; the paper's 10 for a ResNet.
        num_neighbors: k, the background neighbors; the paper's 4096.
        warm_start: Checkpoint of an `InstanceRecognition` or `LocalAggregation` run on the same images, whose network
            and memory this one starts from.
        warmup_epochs: Epochs of instance recognition before the first clustering; the paper's 10.
        backbone: Description of the network.
        optimizer: The paper: SGD, lr 0.03, momentum 0.9, weight decay 1e-4.
        schedule: The paper: a tenth at epochs 160 and 187 of 200 for ResNet-18.
        projection: D of the embedding.
        temperature: tau; the paper's 0.07.
        momentum: m of the memory.
        decay_all: Weight decay for biases and normalization layers too; False as in the paper's code.
        image_size: Side of the images of the run, in pixels.
        mean: Mean of the images' channels as fractions 0..1.
        std: Their standard deviation.

    Raises:
        ValueError: For numbers out of range; in `setup`, for more neighbors or clusters than images, or a
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
        image_size: int = 32,
        mean: RGB = (0.5, 0.5, 0.5),
        std: RGB = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(backbone, optimizer, schedule, image_size, mean, std, decay_all=decay_all)
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
        self._seen: tuple[Tensor, Tensor] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """See `Method.layers`."""
        return ("backbone", "projector")

    def features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """See `Method.features`."""
        features = self(images)
        return self._unit(features) if layer == "projector" else features

    def embed_views(self, views: list[Float[Tensor, "B 3 _h _w"]]) -> list[Float[Tensor, "B D"]]:
        """Unit embeddings of each view, for the memory's beginning where nothing warmed it up."""
        return list(self._unit(features_of_views(self.backbone, views)).chunk(len(views)))

    def stage_files(self) -> dict[str, str]:
        """See `Method.stage_files`."""
        return {"warm_start": self.warm_start} if self.warm_start else {}

    def setup(self, stage: str) -> None:
        """See `Method.setup`; a fresh network takes up what it is to start from."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if stage != "fit" and stage != "validate":
            return
        if self.warm_start and self.bank.is_empty and isinstance(data, KnowsItsRows):
            self._start_from(self.warm_start, data)

    def reject_few(self, num_samples: int) -> None:
        """See `Method.refuse_few`; a background of more images than there are is rejected too."""
        super().reject_few(num_samples)
        if self.num_neighbors > num_samples:
            raise UsageError(
                f"found num_neighbors={self.num_neighbors} for {num_samples} images; expected at most as many: lower "
                "--model.num_neighbors"
            )

    def on_fit_start(self) -> None:
        """Warm-up begins with random unit rows, unless a checkpoint brought the memory."""
        data = cast(KnowsItsRows, self.trainer.datamodule)  # type: ignore[attr-defined]  # Lightning sets it
        if self.bank.is_empty:
            self.bank.initialize(data.num_samples, self.projector.out_features, number(data.seed, Purpose.BANK))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """How much of each image's background is close to it; while warming up, how well it finds itself."""
        z, index = self._unit(self(batch.views[0])), batch.index.to(self.device)
        self._seen = index, z.detach()
        bank, tau = self.bank.rows, self.temperature
        # here and not at an epoch's start, which a run that is resumed within an epoch does not see
        self.chance_loss = math.log(len(bank)) if self._is_warming_up else None
        if self._is_warming_up:
            loss = instance_loss(z, index, bank, tau)
        else:
            loss = local_aggregation_loss(z, index, bank, self.pseudo_labels.all_rows(), self.num_neighbors, tau)
        return {"loss": loss, "embeddings": z.detach()}

    def on_after_backward(self) -> None:
        """The memory takes up what this step saw."""
        assert self._seen is not None
        index, z = self._seen
        self.bank.write(gather_rows(index, world()), gather_rows(z, world()))
        self._seen = None

    def clustered_banks(self) -> list[FeatureBank]:
        """The memory is what is clustered."""
        return [self.bank]

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Who is close to whom; with the first clusters the optimizer forgets the warm-up."""
        if self.pseudo_labels.is_empty:
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()
        self.pseudo_labels.assign(clusterings)

    @property
    def has_neighbors(self) -> bool:
        """False before the first clusters."""
        return not self.pseudo_labels.is_empty

    def neighbors(self, index: Int[Tensor, "B"]) -> Neighbors:
        """Background and close neighbors of some rows of the memory, as they are now."""
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

    def _start_from(self, path: str, data: KnowsItsRows) -> None:
        """Network and memory of another run, whose rows must be these images.

        Raises:
            ValueError: If it has no memory, saw other images, or has a network of another shape.
        """
        earlier = load_model(path)
        if not isinstance(getattr(earlier, "bank", None), FeatureBank):
            raise UsageError(
                f"found --model.warm_start {path} of a {type(earlier).__name__}, which keeps no memory; expected a "
                "checkpoint of InstanceRecognition or LocalAggregation"
            )
        if (
            earlier.data_fingerprint not in ("", data.fingerprint_as(earlier.data_fingerprint))
            or len(earlier.bank.rows) != data.num_samples
        ):
            raise UsageError(
                f"found --model.warm_start {path} with a memory of {len(earlier.bank.rows)} other images than the "
                f"{data.num_samples} of this run; expected a checkpoint trained on the same data"
            )
        for name in ("backbone", "projector"):
            try:
                getattr(self, name).load_state_dict(getattr(earlier, name).state_dict())
            except RuntimeError as error:
                first = " ".join(str(error).split())[:200]
                raise UsageError(f"found a {name} in {path} that is not the one of this run: {first}") from error
        self.bank.set_extra_state(earlier.bank.get_extra_state())
        log.info("starting from network and memory of %s", path)
