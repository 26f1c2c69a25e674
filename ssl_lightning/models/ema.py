"""EmaTeacher: a copy of a network that follows it, with a momentum that rises over training."""

import math

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ssl_lightning.errors import UsageError


class EmaTeacher(nn.Module):
    """The running average of a student: theta' <- tau theta' + (1 - tau) theta, after every optimizer step.

    tau rises from `momentum` to 1 with half a cosine: tau = 1 - (1 - momentum) (cos(pi k / K) + 1) / 2 at step k of K
    (Grill et al. 2020, BYOL, arXiv 2006.07733, section 3.3). Running statistics are averaged too. The teacher has no
    gradient, belongs to no optimizer, and is a submodule of the method, so checkpoints hold it.

    Args:
        student: The network to average; the teacher starts as a copy of it.
        momentum: tau at the first step, in [0, 1].

    Raises:
        ValueError: For a momentum outside [0, 1].
    """

    def __init__(self, student: nn.Module, momentum: float = 0.996) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UsageError(f"found a teacher's momentum of {momentum}; expected a number from 0 to 1")
        self.momentum = momentum
        self.average = AveragedModel(student, use_buffers=True)
        self.average.n_averaged.fill_(1)  # else the first update would copy
        self.average.requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        """The averaged network itself."""
        return self.average.module

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output of the averaged network."""
        return self.average(*inputs)

    def tau(self, step: int, steps: int) -> float:
        """The momentum at one of so many steps."""
        return 1 - (1 - self.momentum) * (math.cos(math.pi * min(step, steps) / steps) + 1) / 2

    def follow(self, student: nn.Module, step: int, steps: int) -> None:
        """Average the student in after an optimizer step.

        Args:
            student: The network that the teacher is a copy of.
            step: k, optimizer steps so far.
            steps: K, those of the whole training.
        """
        self.average.multi_avg_fn = get_ema_multi_avg_fn(self.tau(step, steps))
        self.average.update_parameters(student)
