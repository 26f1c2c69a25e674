"""Learning-rate schedules, counted in optimizer steps."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ssl_lightning.errors import UsageError


class Schedule(ABC):
    """A factor on every parameter group's learning rate, as a function of the step."""

    @abstractmethod
    def __call__(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """The factor of one optimizer step.

        Args:
            step: Steps taken so far.
            total_steps: Steps of the whole run.
            steps_per_epoch: Steps of one pass over the data.
        """


@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Linear warm-up, then half a cosine down to the end of the run [Loshchilov & Hutter 2017, equation 5, one cycle].

    Args:
        warmup_epochs: Length of the warm-up in epochs; fractions are welcome, 0 is none.
        start: Factor of the very first step where there is a warm-up.
        end: Factor that the cosine falls to.
    """

    warmup_epochs: float = 0.0
    start: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_epochs < 0 or not 0 <= self.start <= 1 or not 0 <= self.end <= 1:
            raise UsageError(f"found {self}; expected warmup_epochs of at least 0, start and end within 0..1")

    def __call__(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """See `Schedule`."""
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total_steps)
        if step < warmup:
            return self.start + (1 - self.start) * step / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class MultiStep(Schedule):
    """The full rate, multiplied by a factor at some epochs: the schedule of Wu et al. 2018 and Zhuang et al. 2019.

    Args:
        epochs: When; fractions are welcome.
        of: Length of the run that they are meant for, in epochs: a shorter or longer one warms up and drops after the
            same shares of it. None to take them as they stand.
        factor: By what.
        warmup_epochs: Length of a linear warm-up before, in epochs; fractions are welcome, 0 is none.
        start: Factor of the very first step where there is a warm-up.
    """

    epochs: tuple[float, ...] = (120.0, 160.0)
    of: float | None = None
    factor: float = 0.1
    warmup_epochs: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        if list(self.epochs) != sorted(self.epochs) or min(self.epochs, default=0.0) < 0 or not 0 < self.factor <= 1:
            raise UsageError(f"found {self}; expected ascending epochs of at least 0 and a factor within 0..1")
        if self.of is not None and self.of <= max(self.epochs, default=0.0):
            raise UsageError(f"found {self}; expected of, the length of a run, to be more than the epochs within it")
        if self.warmup_epochs < 0 or self.warmup_epochs > min(self.epochs, default=self.warmup_epochs):
            raise UsageError(f"found {self}; expected warmup_epochs of at least 0 that end before the first drop")
        if not 0 <= self.start <= 1:
            raise UsageError(f"found {self}; expected start within 0..1")

    def __call__(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """See `Schedule`."""
        epoch_steps = steps_per_epoch if self.of is None else total_steps / self.of
        warmup = round(self.warmup_epochs * epoch_steps)
        if step < warmup:
            return self.start + (1 - self.start) * step / warmup
        return self.factor ** sum(step >= round(epoch * epoch_steps) for epoch in self.epochs)
