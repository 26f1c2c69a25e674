"""DeepCluster as the claims need it: from two views, and with a head that survives the clustering."""

from dataclasses import replace

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ssl_lightning.clustering.clusterer import Clustering
from ssl_lightning.functional import pseudo_label_loss
from ssl_lightning.methods import DeepCluster
from ssl_lightning.types import Batch


class TwoViewDeepCluster(DeepCluster):
    """DeepCluster that sees as many crops a step as DeepCluster-v2: the mean over all views of an image."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Float[Tensor, "..."]]:
        """Cross-entropy of every view to the image's cluster."""
        features = self(torch.cat(batch.views))
        logits = self.head(features)
        labels = self.pseudo_labels[batch.index].repeat(len(batch.views), 1)
        return {
            "loss": pseudo_label_loss([logits], labels),
            "embeddings": features.detach(),
            "scores": logits.detach(),
        }


class MatchedDeepCluster(TwoViewDeepCluster):
    """The head is kept: each new cluster takes the name of the old one that it shares most images with."""

    def on_reclustered(self, clusterings: list[Clustering], seed: int) -> None:
        """Names by the assignment that keeps most images where they were."""
        if self.pseudo_labels.is_empty:
            super().on_reclustered(clusterings, seed)
            return
        (clustering,), before = clusterings, self.pseudo_labels.rows[:, 0].cpu().long()
        now = clustering.labels.cpu().long()
        labels = matching(before, now, self.num_clusters)[now].to(clustering.labels.device)
        self.pseudo_labels.assign([replace(clustering, labels=labels)])
        self._balance_sampler()


def matching(before: Tensor, now: Tensor, k: int) -> Tensor:
    """The old name of each new cluster [K], each once, with as many images keeping their label as can be."""
    shared = torch.bincount(now * k + before, minlength=k * k).reshape(k, k)
    new, old = linear_sum_assignment(shared.numpy(), maximize=True)
    names = torch.empty(k, dtype=torch.int64)
    names[torch.from_numpy(new)] = torch.from_numpy(old)
    return names
