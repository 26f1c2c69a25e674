"""The SwAV loss: predict the code of each assigned view from the other views."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def swapped_prediction_loss(
    scores: list[Float[Tensor, "B K"]], codes: list[Float[Tensor, "B K"]], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Cross-entropy between the codes of the first A views and the predictions from every other view.

    Equations 2 and 6 of Caron et al. 2020 (SwAV, arXiv 2006.09882): the mean over the A assigned views a of the mean
    over the V - 1 other views v of the mean over images of -sum_k q_a[k] log softmax(s_v / temperature)[k]. The loss is
    computed in float32. Codes receive no gradient.

    Args:
        scores: Products of unit embeddings and prototypes, one tensor per view, the assigned views first.
        codes: Codes of the first A views; each row sums to 1.
        temperature: tau; 0.1 in the paper.

    Returns:
        A scalar; ln K if all embeddings are equal.

    Raises:
        ValueError: For fewer than two views, more codes than views, no codes, or a temperature that is not positive.
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
            # each view predicts the sum of the codes of all others: one product per view instead of one per pair
            others = every_code - codes[view].detach().float() if view < num_codes else every_code
            if view < num_codes and num_codes == 1:
                continue  # there is no other code
            total = total - (others * F.log_softmax(score.float() / temperature, dim=1)).sum()
    return total / (len(scores[0]) * num_codes * (num_views - 1))
