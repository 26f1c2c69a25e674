"""Optimizers and schedules that torch.optim and timm.optim lack, under the names of the papers."""

from ssl_lightning.optim.exclusion import without_decay
from ssl_lightning.optim.lars import LARC, LARS
from ssl_lightning.optim.schedules import MultiStep, Schedule, WarmupCosine

__all__ = ["LARC", "LARS", "MultiStep", "Schedule", "WarmupCosine", "without_decay"]
