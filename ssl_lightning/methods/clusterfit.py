"""ClusterFit: a network from scratch, fitted to the clusters of a pretrained network's features [Yan et al. 2020]."""

import math

from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn, optim

from ssl_lightning.clustering.clusterer import Clustering, reject_other_images
from ssl_lightning.contracts import data_of
from ssl_lightning.counter_rng import Purpose, separate_rng
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, stuck_at_chance, unused_prototypes
from ssl_lightning.functional.pseudo_label import pseudo_label_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.sample_state import PseudoLabels
from ssl_lightning.types import Batch


class ClusterFit(Method):
    """Predict the cluster of each image in the features of a pretrained network, by a network trained from scratch.

    Yan, Misra, Gupta, Ghadiyaram, Mahajan: "ClusterFit: Improving Generalization of Visual Representations", CVPR 2020
    (arXiv 1912.03330), section 3. The first stage is any network; the second clusters its features of all images once
    (`predict` with `WriteClusters`); this is the third: cross-entropy to the K clusters, which stay fixed. No
    alternation, no balanced sampling. The head is discarded afterwards. The initial weights come from a random stream
    of their own: otherwise they would equal those of a pretrained network of the same seed and architecture.

    The cluster file must be made for the images of this run, in their order. Its labels are stored in the checkpoint,
    so a trained model is read without it.

    Note:
        Images that the second stage could not read have no cluster and do not contribute to the loss.

    Args:
        clusters: The second stage's file, `<path>.safetensors`.
        num_clusters: K, as in that file; the paper's 16,000 on ImageNet.
        backbone: Description of the network, of any architecture.
        optimizer: The published recipe on ImageNet: SGD, lr 0.1 at batch 256, momentum 0.9, weight decay 1e-4 except on
            normalization layers.
        schedule: The published recipe: five epochs of warm-up, a tenth at epochs 30, 60, 90 and 100 of 105.
        decay_all: Weight decay for biases and normalization layers too.
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: In `setup`, if the file is missing or damaged, was made for other images, or has another K.
    """

    def __init__(
        self,
        clusters: str,
        num_clusters: int,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule: Schedule | None = None,
        decay_all: bool = False,
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        with separate_rng(Purpose.STUDENT):
            super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
        if num_clusters < 2:
            raise UsageError(f"found num_clusters={num_clusters}; expected at least 2")
        self.clusters, self.num_clusters, self.chance_loss = clusters, num_clusters, math.log(num_clusters)
        self.head = nn.Linear(self.backbone.num_features, num_clusters)
        self.pseudo_labels = PseudoLabels()

    def stage_files(self) -> dict[str, str]:
        """See `Method.stage_files`."""
        return {"clusters": self.clusters}

    def setup(self, stage: str) -> None:
        """See `Method.setup`; read the clusters."""
        super().setup(stage)
        if stage == "fit":
            clustering, made_for = Clustering.load(self.clusters)
            self._reject_other(clustering, made_for)
            self.pseudo_labels.assign([clustering])

    def logits(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B K"]:
        """Normalized images to a logit for each cluster."""
        return self.head(self(images))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Float[Tensor, "..."]]:
        """Cross-entropy of the first view to the image's cluster."""
        features = self(batch.views[0])
        logits = self.head(features)
        loss = pseudo_label_loss([logits], self.pseudo_labels[batch.index].to(logits.device))
        return {"loss": loss, "embeddings": features.detach(), "scores": logits.detach()}

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        slower = "a lower --model.optimizer.lr or a longer --model.schedule.warmup_epochs"
        fewer = f"fewer clusters in the second stage (now {self.num_clusters})"
        return [*super().failures(), stuck_at_chance(slower), unused_prototypes(f"{fewer}, or {slower}")]

    def _reject_other(self, clustering: Clustering, made_for: dict[str, str]) -> None:
        """Reject clusters of other images, or another number of clusters."""
        again = "make them again with predict and WriteClusters (make clusterfit does)"
        k = len(clustering.sizes)
        if k != self.num_clusters:
            raise UsageError(
                f"found {k} clusters in {self.clusters}, expected {self.num_clusters}: give --model.num_clusters {k}, "
                f"or {again}"
            )
        data = data_of(self.trainer)
        own = data.fingerprint_as(made_for.get("data"))
        reject_other_images(self.clusters, clustering, made_for, own, data.num_samples, again)
