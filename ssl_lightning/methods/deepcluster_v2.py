"""DeepCluster-v2: the head is the centroids of the last epoch's embeddings [Caron et al. 2020, appendix D]."""

import math
from typing import Any

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
from ssl_lightning.methods.method import Method
from ssl_lightning.models.backbones import Backbone, ResNet18
from ssl_lightning.models.heads import Projector, Prototypes
from ssl_lightning.models.multi_crop import features_of_views
from ssl_lightning.models.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from ssl_lightning.optim.lars import LARC
from ssl_lightning.optim.schedules import Schedule
from ssl_lightning.processes import gather_rows, world
from ssl_lightning.sample_state import FeatureBank, PseudoLabels
from ssl_lightning.types import Batch

ASSIGNED_VIEWS = 2
"""Embeddings of the first two views, the global crops, are stored and clustered."""


class DeepClusterV2(Method):
    """Cluster the embeddings of the last epoch several times; predict the clusters from all views.

    Caron, Misra, Mairal, Goyal, Bojanowski, Joulin: "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", NeurIPS 2020 (arXiv 2006.09882), appendix D. Two memory banks keep the unit embeddings of the two
    global crops from training. At the start of every epoch `Recluster` runs spherical k-means on a bank for each of H
    heads; the centroids become the heads, which no gradient changes, and each view predicts its image's cluster.
    Nothing is initialized anew, so the loss does not jump.

    Note:
        The banks are filled once before the first epoch, in a random order and without changing running statistics;
        the original's pass changes them. k-means starts from rows of the whole bank, the original's from those of the
        first process. Rows that an epoch leaves out (`drop_last`) keep their embedding and are clustered with it.
        With a clusterer that is not spherical the heads are its centroids too, of any length.

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
        preprocessing: Image size and normalization of the run.

    Raises:
        UsageError: For numbers out of range, or a run of a single epoch, which has no earlier epoch to learn from.
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
        preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, preprocessing, decay_all=decay_all)
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
        self._last_embeddings: tuple[Tensor, list[Tensor]] | None = None

    def embed_views(self, views: list[Float[Tensor, "B 3 _h _w"]]) -> list[Float[Tensor, "B D"]]:
        """Unit embeddings of each view, in float32: one backbone call for each resolution, one projector call."""
        embeddings = self.projector(features_of_views(self.backbone, views))
        return list(F.normalize(embeddings.float(), dim=1).chunk(len(views)))

    def setup(self, stage: str) -> None:
        """See `Method.setup`; the clusters of an epoch come from the one before, so a single epoch is rejected."""
        super().setup(stage)
        if stage == "fit" and self.trainer.max_epochs == 1:
            raise UsageError(
                "found max_epochs=1; DeepClusterV2 learns from the embeddings of the epoch before: give "
                "--trainer.max_epochs 2 or more, or take SwAV for a single pass"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Cross-entropy of every view to the image's cluster, averaged over heads."""
        embeddings = self.embed_views(batch.views)  # V x [B, D]
        scores = [head(torch.cat(embeddings)) for head in self.heads]  # H x [V * B, K]
        labels = self.pseudo_labels[batch.index].repeat(len(embeddings), 1)  # [V * B, H]
        self._last_embeddings = batch.index, [view.detach() for view in embeddings[:ASSIGNED_VIEWS]]
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
        """Write the embeddings of this step into the banks, without momentum."""
        assert self._last_embeddings is not None
        index, views = self._last_embeddings
        every_index = gather_rows(index, world())
        for bank, view in zip(self.clustered_banks(), views, strict=True):
            bank.write(every_index, gather_rows(view, world()))
        self._last_embeddings = None

    def clustered_banks(self) -> list[FeatureBank]:
        """Head h clusters the bank of view h mod 2."""
        return [bank for bank in self.banks if isinstance(bank, FeatureBank)]

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Set the labels, and the centroids as heads."""
        self.pseudo_labels.assign(clusterings)
        heads = [head for head in self.heads if isinstance(head, Prototypes)]
        for head, clustering in zip(heads, clusterings, strict=True):
            head.set_(clustering.centroids)
