"""DeepCluster-v2: the centroids of the last epoch's embeddings are the head [Caron et al. 2020, appendix D]."""

import math
from typing import Any, cast

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import ModuleList
from torch.nn import functional as F

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.errors import UsageError
from ssl_lightning.failures import Failure, one_cluster, stuck_at_chance, unused_prototypes
from ssl_lightning.functional.pseudo_label import pseudo_label_loss
from ssl_lightning.methods.method import RGB, Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.heads import Projector, Prototypes
from ssl_lightning.models.layers import features_at
from ssl_lightning.models.multi_crop import features_of_views
from ssl_lightning.optim.lars import LARC
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import gather_rows, world
from ssl_lightning.sample_state import FeatureBank, PseudoLabels
from ssl_lightning.types import Batch

ASSIGNED_VIEWS = 2
"""Embeddings of the first two views, the global crops, are kept and clustered."""


class DeepClusterV2(Method):
    """Cluster what the images looked like in the last epoch, several times over; predict the clusters from all views.

    Caron, Misra, Mairal, Goyal, Bojanowski, Joulin: "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", NeurIPS 2020 (arXiv 2006.09882), appendix D. Two banks keep the unit embeddings of the two global
    crops as training makes them. At the start of every epoch `Recluster` runs spherical k-means on a bank for each of H
    heads; the centroids become the heads, which no gradient ever changes, and each view predicts its image's cluster.
    Nothing is drawn afresh, so the loss does not jump.

    Note:
        The banks are filled once before the first epoch, in a drawn order and without touching running statistics;
        the original's pass moves them. k-means starts from rows of the whole bank, the original's from those of the
        first process. Rows that an epoch left out (`drop_last`) keep their embedding and are clustered with it.
        With a clusterer that is not spherical the heads are its centroids all the same, of whatever length.

    Args:
        num_clusters: K of each clustering. The paper's 3000; N/50 to N/20 for runs of minutes.
        num_heads: H, clusterings with different starts; the paper's 3.
        backbone: Description of the network.
        optimizer: The paper's is SGD with LARC on all tensors, lr 4.8 at batch 4096, weight decay 1e-6.
        schedule: The paper: ten epochs of warm-up, then a cosine to a thousandth.
        hidden: Widths of the projector's hidden layers.
        projection: D of the embedding.
        projector_norm: Batch normalization in the projector.
        temperature: tau; the paper's 0.1.
        decay_all: Weight decay for biases and normalization layers too, as the paper's code has it.
        image_size: Side of the images of the run, in pixels.
        mean: Mean of the images' channels as fractions 0..1.
        std: Their standard deviation.

    Raises:
        ValueError: For numbers out of range, or a run of a single epoch, which has no epoch before it to learn from.
    """

    min_views = ASSIGNED_VIEWS

    def __init__(
        self,
        num_clusters: int = 3000,
        num_heads: int = 3,
        backbone: Backbone = ResNet18(),  # a frozen description
        optimizer: OptimizerCallable = LARC,
        schedule: Schedule | None = None,
        hidden: tuple[int, ...] = (2048,),
        projection: int = 128,
        projector_norm: bool = True,
        temperature: float = 0.1,
        decay_all: bool = True,
        image_size: int = 32,
        mean: RGB = (0.5, 0.5, 0.5),
        std: RGB = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(backbone, optimizer, schedule, image_size, mean, std, decay_all=decay_all)
        if num_clusters < 2 or num_heads < 1 or temperature <= 0:
            raise UsageError(
                f"found num_clusters={num_clusters}, num_heads={num_heads}, temperature={temperature}; expected at "
                "least 2 clusters, 1 head and a positive temperature"
            )
        self.num_clusters, self.num_heads, self.temperature = num_clusters, num_heads, temperature
        self.chance_loss = math.log(num_clusters)
        self.projector = Projector(self.backbone.num_features, list(hidden), projection, projector_norm)
        self.heads = ModuleList(Prototypes(num_clusters, projection, learned=False) for _ in range(num_heads))
        self.banks = ModuleList(FeatureBank(momentum=0.0) for _ in range(ASSIGNED_VIEWS))
        self.pseudo_labels = PseudoLabels()
        self._seen: tuple[Tensor, list[Tensor]] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """See `Method.layers`."""
        return ("backbone", "projector")

    def features(self, images: Float[Tensor, "B 3 h w"], layer: str) -> Float[Tensor, "B D"]:
        """See `Method.features`."""
        return features_at(layer, self.backbone, self.projector, images)

    def embed_views(self, views: list[Float[Tensor, "B 3 _h _w"]]) -> list[Float[Tensor, "B D"]]:
        """Unit embeddings of each view, in float32: one call of the backbone a resolution, one of the projector."""
        embeddings = self.projector(features_of_views(self.backbone, views))
        return list(F.normalize(embeddings.float(), dim=1).chunk(len(views)))

    def setup(self, stage: str) -> None:
        """See `Method.setup`; clusters of an epoch come from the one before, so one pass teaches nothing."""
        super().setup(stage)
        if stage == "fit" and self.trainer.max_epochs == 1:
            raise UsageError(
                "found max_epochs=1; DeepClusterV2 learns from what the epoch before left: give --trainer.max_epochs "
                "2 or more, or take SwAV for a single pass"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Cross-entropy of every view to the image's cluster, averaged over heads."""
        embeddings = self.embed_views(batch.views)  # V x [B, D]
        scores = [head(torch.cat(embeddings)) for head in self.heads]  # H x [V * B, K]
        labels = self.pseudo_labels[batch.index].repeat(len(embeddings), 1)  # [V * B, H]
        self._seen = batch.index, [view.detach() for view in embeddings[:ASSIGNED_VIEWS]]
        return {
            "loss": pseudo_label_loss(scores, labels.to(scores[0].device), self.temperature),
            "embeddings": embeddings[0].detach(),
            "scores": scores[0].detach()[: len(batch.index)],
        }

    def failures(self) -> list[Failure]:
        """See `Method.failures`."""
        slower = "a lower --model.optimizer.lr or a longer --model.schedule.warmup_epochs"
        fewer = f"--model.num_clusters {max(2, (self.num_clusters or 2) // 4)} (now {self.num_clusters})"
        return [
            *super().failures(),
            stuck_at_chance(f"{slower}, or {fewer}"),
            unused_prototypes(f"{fewer}, or {slower}"),
            one_cluster(f"{slower}, or {fewer}"),
        ]

    def on_after_backward(self) -> None:
        """The banks take up what this step saw: no momentum, no pass of their own."""
        assert self._seen is not None
        index, views = self._seen
        every_index = gather_rows(index, world())
        for bank, view in zip(self.banks, views, strict=True):
            cast(FeatureBank, bank).write(every_index, gather_rows(view, world()))
        self._seen = None

    def clustered_banks(self) -> list[FeatureBank]:
        """Head h clusters the bank of view h mod 2."""
        return [cast(FeatureBank, bank) for bank in self.banks]

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Labels, and heads that are the centroids to the bit."""
        self.pseudo_labels.assign(clusterings)
        for head, clustering in zip(self.heads, clusterings, strict=True):
            cast(Prototypes, head).set_(clustering.centroids)
