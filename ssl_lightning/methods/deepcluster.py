"""DeepCluster: predict k-means clusters of the network's own features, made anew every epoch [Caron et al. 2018]."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.contracts import data_of, has_training_data
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, one_cluster, unused_prototypes
from ssl_lightning.functional.pseudo_label import pseudo_label_loss
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.heads import ClusterHead
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.models.sobel import Sobel
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.sample_state import PseudoLabels
from ssl_lightning.types import Batch


class DeepCluster(Method):
    """Cluster the features of all images, learn to predict each image's cluster, repeat.

    Caron, Bojanowski, Joulin, Douze: "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018
    (arXiv 1807.05520). At the start of every epoch `Recluster` takes penultimate features of the center views in eval
    mode, applies PCA, whitening and unit length, and runs k-means; then the head is initialized anew and one epoch of
    cross-entropy to the clusters follows (equation 2), with images sampled uniformly over clusters (section 3.3).

    Note:
        Balanced sampling follows the paper. The released code samples by natural frequency, since it indexes a sorted
        list with unsorted ids; `sampler="natural"` does the same. Every member of a cluster is sampled once before any
        is sampled again.
        The original has a second SGD without momentum for the head, made anew with it. Here the head is a parameter
        group without momentum of the one optimizer, and its state is dropped: the same arithmetic.
        ResNet and RegNet have no such layer before the head, so their pooled output is
        clustered. The features of AlexNet and VGG16 are the last hidden layer before its ReLU, which the head applies.

    Args:
        num_clusters: K. The paper takes ten times the expected number of classes.
        backbone: Description of the network.
        optimizer: Takes the parameter groups. The paper: SGD, lr 0.05 constant, momentum 0.9, weight decay 1e-5.
        schedule: Of the learning rate; the paper has none.
        sobel: Put a frozen gray-and-Sobel stem before the network, as the paper does.
        sampler: "balanced" over non-empty clusters, or "natural".
        preprocessing: Image size and normalization of the run.
    """

    def __init__(
        self,
        num_clusters: int = 100,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-5),
        schedule: Schedule | None = None,
        sobel: bool = False,
        sampler: Literal["balanced", "natural"] = "balanced",
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        if num_clusters < 2:
            raise UsageError(f"found num_clusters={num_clusters}; expected at least 2: change --model.num_clusters")
        super().__init__(backbone, optimizer, schedule, preprocessing, in_channels=2 if sobel else 3)
        self.num_clusters, self.chance_loss = num_clusters, math.log(num_clusters)
        self.sampler = sampler
        self.stem = Sobel() if sobel else torch.nn.Identity()
        self.head = ClusterHead(self.backbone.num_features, num_clusters, rectify=not self.backbone.rectified)
        self.pseudo_labels = PseudoLabels()

    def setup(self, stage: str) -> None:
        """See `Method.setup`; data that are balanced over the clusters of a file are rejected."""
        super().setup(stage)
        if self.sampler == "balanced" and has_training_data(self.trainer) and data_of(self.trainer).is_balanced:
            raise UsageError(
                "found data.balance and model.sampler=balanced, which balances over DeepCluster's own clusters; "
                "expected one of them: give --model.sampler natural, or leave out data.balance"
            )

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Normalized images to penultimate features."""
        return self.backbone(self.stem(images))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Float[Tensor, "..."]]:
        """Cross-entropy of the first view to the image's cluster."""
        features = self(batch.views[0])
        logits = self.head(features)
        loss = pseudo_label_loss([logits], self.pseudo_labels[batch.index])
        return {"loss": loss, "embeddings": features.detach(), "scores": logits.detach()}

    def failures(self) -> list[Failure]:
        """See `Method.failures`; a loss at chance is none of them, since each new head starts there."""
        slower = "a lower --model.optimizer.lr"
        fewer = f"--model.num_clusters {max(2, (self.num_clusters or 2) // 4)} (now {self.num_clusters})"
        return [
            *super().failures(),
            unused_prototypes(f"{fewer}, or {slower}"),
            one_cluster(f"--model.sampler balanced, PCAWhitening as Recluster's transform, or {slower}"),
        ]

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Set the labels, a new head without momentum, and sampling that is uniform over the new clusters."""
        self.pseudo_labels.assign(clusterings)
        self.head.reset(seed)
        for optimizer in self.trainer.optimizers:
            for parameter in self.head.parameters():
                optimizer.state.pop(parameter, None)
        self._balance_sampler()

    def on_train_start(self) -> None:
        """After a resume the labels come from the checkpoint, and the sampler does not have them yet."""
        self._balance_sampler()

    def _balance_sampler(self) -> None:
        if self.sampler == "balanced" and not self.pseudo_labels.is_empty:
            data_of(self.trainer).set_labels(self.pseudo_labels.rows[:, 0].cpu())

    def parameter_groups(self) -> list[dict[str, object]]:
        """The body, and the head without momentum."""
        return [
            {"params": list(self.backbone.parameters()), "name": "body"},
            {"params": list(self.head.parameters()), "name": "head", "momentum": 0.0},
        ]
