"""The distillation loss of Divide and Contrast: distance of a student's predictions to two teachers' embeddings."""

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
    """Half the squared distance to each teacher, 1/2 |r_b - t_b|^2 + 1/2 |r_k - t_k|^2, averaged over images.

    Section 3.3 of Tian, Henaff, van den Oord 2021 (Divide and Contrast, arXiv 2105.08054). Targets are normalized to
    unit length; predictions are not (normalizing them cost 0.4 points in table 19). Squares are summed over dimensions.
    The loss is computed in float32. Targets receive no gradient.

    Args:
        base_prediction: r_b, the output of the regressor of the base.
        expert_prediction: r_k, the output of the regressor of the expert of the image's cluster.
        base_target: t_b, the base's embeddings of the same views, of any norm.
        expert_target: t_k, that expert's embeddings of the same views.

    Returns:
        A scalar: 0 if all predictions equal the unit targets, 1 for predictions of zero.
    """
    with torch.autocast(base_prediction.device.type, enabled=False):
        pairs = ((base_prediction, base_target), (expert_prediction, expert_target))
        distances = [(r.float() - F.normalize(t.detach().float(), dim=1)).square().sum(1).mean() for r, t in pairs]
        return (distances[0] + distances[1]) / 2
