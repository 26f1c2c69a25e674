"""Scores of all views and codes of some of them to one loss: predict each code from the other views [SwAV]."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def swapped_prediction_loss(
    scores: list[Float[Tensor, "B K"]], codes: list[Float[Tensor, "B K"]], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Cross-entropy between the codes of the first A views and the predictions from every other view.

    Equations 2 and 6 of Caron et al. 2020 (SwAV, arXiv 2006.09882): the mean over the A assigned views a of the mean
    over the V - 1 other views v of the mean over images of -sum_k q_a[k] log softmax(s_v / temperature)[k]. In
    float32 whatever the precision of the scores; codes get no gradient.

    Args:
        scores: Products of unit embeddings and prototypes, one tensor a view, the assigned views first.
        codes: Of the first A views; each row sums to 1.
        temperature: tau; the paper's 0.1.

    Returns:
        A scalar; ln K for embeddings that have collapsed to a point.

    Raises:
        ValueError: For fewer than two views, more codes than views, none at all, or a temperature that is not positive.
    """
    num_views, num_codes = len(scores), len(codes)
    if not 1 <= num_codes <= num_views or num_views < 2:
        raise ValueError(
            f"found scores of {num_views} views and codes of {num_codes}; expected 2 views, 1 of them coded"
        )
    if temperature <= 0:
        raise ValueError(f"found temperature={temperature}; expected a positive number")
    with torch.autocast(scores[0].device.type, enabled=False):
        every_code = torch.stack([code.detach().float() for code in codes]).sum(0)  # [B, K]
        total = scores[0].new_zeros((), dtype=torch.float32)
        for view, score in enumerate(scores):
            # each view predicts the codes of all others: one product a view instead of one a pair
            others = every_code - codes[view].detach().float() if view < num_codes else every_code
            if view < num_codes and num_codes == 1:
                continue  # the only code is its own
            total = total - (others * F.log_softmax(score.float() / temperature, dim=1)).sum()
    return total / (len(scores[0]) * num_codes * (num_views - 1))
