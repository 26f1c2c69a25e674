"""SyncBatchNorm: batch statistics over all processes, with timm's networks left whole."""

import lightning.pytorch as pl
from timm.layers import convert_sync_batchnorm
from torch import nn

from ssl_lightning.errors import UsageError


class SyncBatchNorm(pl.Callback):
    """What `trainer.sync_batchnorm` becomes on the command line.

    Lightning converts with torch's function, which puts a plain layer in the place of timm's normalization layers and
    so drops the activation in them: a RegNet would silently lose its ReLUs. timm's own conversion keeps them, and is
    applied with `ModelParallelStrategy` too, which Lightning leaves unconverted.

    Raises:
        UsageError: On the CPU, where torch has no such layer.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before the strategy wraps or spreads the module; a second time there is nothing to do.

        Evaluating, training and evaluating again each set up, and a second conversion takes timm's layers for torch's
        and drops the activations after all.
        """
        if trainer.world_size == 1:
            return
        if trainer.strategy.root_device.type == "cpu":
            raise UsageError("found trainer.sync_batchnorm on the CPU, which torch cannot do; leave it off")
        for name, child in pl_module.named_children():
            if not any(isinstance(layer, nn.SyncBatchNorm) for layer in child.modules()):
                setattr(pl_module, name, convert_sync_batchnorm(child))
