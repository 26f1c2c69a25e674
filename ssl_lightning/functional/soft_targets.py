"""Distillation with softened class probabilities (Hinton et al. 2015)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def soft_target_loss(
    logits: Float[Tensor, "B C"], targets: Float[Tensor, "B C"], temperature: float
) -> Float[Tensor, ""]:
    """T^2 KL(p || q) with p = softmax(targets / T) and q = softmax(logits / T), averaged over the rows.

    Equation 1 of Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2. The factor T^2 keeps the scale of gradients
    independent of the temperature. The loss is computed in float32. Gradients flow through the logits only.

    Note:
        The paper has the cross-entropy, which is larger by the entropy of the targets. The gradients are equal; the KL
        divergence is 0 if the student equals the teacher.

    Args:
        logits: Logits of the student.
        targets: Logits of the teacher.
        temperature: T.

    Returns:
        A scalar; 0 if the two distributions are equal.

    Raises:
        ValueError: If the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"found temperature={temperature}; expected a positive number")
    with torch.autocast(logits.device.type, enabled=False):
        log_p = F.log_softmax(targets.detach().float() / temperature, dim=1)
        log_q = F.log_softmax(logits.float() / temperature, dim=1)
        return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
