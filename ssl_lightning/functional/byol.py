"""The BYOL loss: distance between predictions and the target network's embeddings of the other view."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def byol_loss(
    p1: Float[Tensor, "B D"], p2: Float[Tensor, "B D"], k1: Float[Tensor, "B D"], k2: Float[Tensor, "B D"]
) -> Float[Tensor, ""]:
    """Squared distance between unit predictions and the unit targets of the other view, summed over both directions.

    Equation 2 of Grill et al. 2020 (BYOL, arXiv 2006.07733) and its symmetric counterpart, 2 - 2 cos(p1, k2) +
    2 - 2 cos(p2, k1), averaged over images. The loss is computed in float32. Targets receive no gradient.

    Args:
        p1: Predictions from the first view, of any norm.
        p2: Predictions from the second view.
        k1: Targets of the first view: embeddings by the target network.
        k2: Targets of the second view.

    Returns:
        A scalar between 0 (predictions parallel to their targets) and 8.
    """
    with torch.autocast(p1.device.type, enabled=False):
        cosines = [F.cosine_similarity(p.float(), k.detach().float(), dim=1).mean() for p, k in ((p1, k2), (p2, k1))]
        return 4 - 2 * (cosines[0] + cosines[1])
