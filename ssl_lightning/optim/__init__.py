"""What torch.optim and timm.optim lack."""

from ssl_lightning.optim.schedules import Schedule, WarmupCosine

__all__ = ["Schedule", "WarmupCosine"]
