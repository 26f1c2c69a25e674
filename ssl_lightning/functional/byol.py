"""Predictions of one view and an averaged network's embeddings of the other to their distance [BYOL]."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def byol_loss(
    p1: Float[Tensor, "B D"], p2: Float[Tensor, "B D"], k1: Float[Tensor, "B D"], k2: Float[Tensor, "B D"]
) -> Float[Tensor, ""]:
    """Squared distance of unit predictions and the other view's unit targets, 2 - 2 cos, summed over both directions.

    Equation 2 of Grill et al. 2020 (BYOL, arXiv 2006.07733) and its symmetric counterpart, averaged over images. In
    float32 whatever the precision of the embeddings; targets get no gradient.

    Args:
        p1: Predictions from the first view, of any length.
        p2: From the second view.
        k1: Targets: embeddings of the first view by the averaged network.
        k2: Of the second view.

    Returns:
        A scalar from 0, for predictions parallel to their targets, to 8.
    """
    with torch.autocast(p1.device.type, enabled=False):
        cosines = [F.cosine_similarity(p.float(), k.detach().float(), dim=1).mean() for p, k in ((p1, k2), (p2, k1))]
        return 4 - 2 * (cosines[0] + cosines[1])
