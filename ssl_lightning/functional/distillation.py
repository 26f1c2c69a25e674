"""Predictions of a student and embeddings of two teachers to their squared distances [Divide and Contrast]."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def distillation_loss(
    base_prediction: Float[Tensor, "B E"],
    expert_prediction: Float[Tensor, "B D"],
    base_target: Float[Tensor, "B E"],
    expert_target: Float[Tensor, "B D"],
) -> Float[Tensor, ""]:
    """Half the squared distance to each teacher, added: 1/2 |r_b - t_b|^2 + 1/2 |r_k - t_k|^2, averaged over images.

    Section 3.3 of Tian, Henaff, van den Oord 2021 (Divide and Contrast, arXiv 2105.08054): targets are brought to unit
    length, predictions are not (normalizing them cost 0.4 points, table 19). Squares are summed over dimensions. In
    float32 whatever the precision of the embeddings; targets get no gradient.

    Args:
        base_prediction: r_b, what the regressor of the base says of each image.
        expert_prediction: r_k, what the regressor of its own cluster's expert says.
        base_target: Embeddings of the same views by the base, of any length.
        expert_target: Of the same views by that expert.

    Returns:
        A scalar; 0 where both teachers' unit embeddings are met, 1 for predictions of zero.
    """
    with torch.autocast(base_prediction.device.type, enabled=False):
        pairs = ((base_prediction, base_target), (expert_prediction, expert_target))
        distances = [(r.float() - F.normalize(t.detach().float(), dim=1)).square().sum(1).mean() for r, t in pairs]
        return (distances[0] + distances[1]) / 2
