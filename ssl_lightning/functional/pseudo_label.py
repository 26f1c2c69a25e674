"""Cross-entropy with pseudo-labels of H clusterings, for DeepCluster, DeepCluster-v2 and ClusterFit."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.types import UNLABELLED


def pseudo_label_loss(
    logits: list[Float[Tensor, "B _K"]], labels: Int[Tensor, "B H"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Cross-entropy with the cluster of each image, averaged over the labeled rows, then over the heads.

    Equation 2 of Caron et al. 2018 (DeepCluster) for one head, and the mean over heads of Caron et al. 2020, appendix
    D, for several. The loss is computed in float32. A row with label -1 (not clustered) contributes nothing to value
    and gradient. A head without labeled rows counts as 0, where `cross_entropy` returns NaN.

    Args:
        logits: One tensor per head, with one column per cluster of that head.
        labels: Cluster of each row in each clustering, -1 for none.
        temperature: Divides the logits; 1 for DeepCluster, 0.1 for DeepCluster-v2.

    Returns:
        A scalar.

    Raises:
        ValueError: If the number of heads differs from the columns of `labels`, or the temperature is not positive.
    """
    if len(logits) != labels.shape[1]:
        raise ValueError(
            f"found {len(logits)} heads of logits and {labels.shape[1]} columns of labels; give one column a head"
        )
    if temperature <= 0:
        raise ValueError(f"found temperature={temperature}; expected a positive number")
    with torch.autocast(logits[0].device.type, enabled=False):
        heads = [_one_head(head.float() / temperature, labels[:, h]) for h, head in enumerate(logits)]
    return torch.stack(heads).mean()


def _one_head(logits: Float[Tensor, "B K"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    total = F.cross_entropy(logits, labels.long(), ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)
