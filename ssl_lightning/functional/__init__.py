"""Losses and the Sinkhorn algorithm as pure functions of tensors."""

from ssl_lightning.functional.byol import byol_loss
from ssl_lightning.functional.distillation import distillation_loss
from ssl_lightning.functional.instance import estimate_partition, instance_loss, nce_loss
from ssl_lightning.functional.local_aggregation import local_aggregation_loss
from ssl_lightning.functional.moclr import moclr_loss
from ssl_lightning.functional.nt_xent import nt_xent_loss
from ssl_lightning.functional.pseudo_label import pseudo_label_loss
from ssl_lightning.functional.sinkhorn import sinkhorn
from ssl_lightning.functional.soft_targets import soft_target_loss
from ssl_lightning.functional.swapped_prediction import swapped_prediction_loss

__all__ = [
    "byol_loss",
    "distillation_loss",
    "estimate_partition",
    "instance_loss",
    "local_aggregation_loss",
    "moclr_loss",
    "nce_loss",
    "nt_xent_loss",
    "pseudo_label_loss",
    "sinkhorn",
    "soft_target_loss",
    "swapped_prediction_loss",
]
