"""A method: predict the cluster of each image, with a head that is initialized anew at each clustering."""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_lightning.clustering import Clustering
from ssl_lightning.methods import Method
from ssl_lightning.models import Preprocessing
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.optim import Schedule
from ssl_lightning.sample_state import PseudoLabels
from ssl_lightning.types import Batch


class ClusterPrediction(Method):
    """DeepCluster in its simplest form.

    Args:
        preprocessing: Image size, mean and standard deviation of the data; linked from the data on the command line.
        num_clusters: K.
        backbone: Description of the network.
        optimizer: Takes the parameters.
        schedule: Of the learning rate.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        num_clusters: int = 100,
        backbone: Backbone = ResNet18(),
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing)
        self.num_clusters = num_clusters
        self.head = nn.Linear(self.backbone.num_features, num_clusters)
        self.pseudo_labels = PseudoLabels()  # the cluster of every training image; part of the checkpoint

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Cross-entropy of the first view to the image's cluster."""
        features = self(batch.views[0])
        logits = self.head(features)
        labels = self.pseudo_labels[batch.index][:, 0].to(logits.device)
        loss = F.cross_entropy(logits, labels, ignore_index=-1)
        return {"loss": loss, "embeddings": features.detach(), "scores": logits.detach()}

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Replace the labels; cluster ids of two clusterings do not correspond, so the head starts anew."""
        self.pseudo_labels.assign(clusterings)
        self.head.reset_parameters()
