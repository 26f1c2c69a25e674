"""What torch.optim and timm.optim lack, and the names of this literature for what they have."""

from ssl_lightning.optim.exclusion import without_decay
from ssl_lightning.optim.lars import LARC, LARS
from ssl_lightning.optim.schedules import MultiStep, Schedule, WarmupCosine

__all__ = ["LARC", "LARS", "MultiStep", "Schedule", "WarmupCosine", "without_decay"]
