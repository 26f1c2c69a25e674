"""SyncBatchNorm: batch statistics over all processes, for networks of timm too."""

import lightning.pytorch as pl
from timm.layers import convert_sync_batchnorm
from torch import nn

from ssl_lightning.errors import UsageError


class SyncBatchNorm(pl.Callback):
    """Synchronized batch normalization; the command line replaces `trainer.sync_batchnorm` with it.

    Lightning converts with torch's function, which replaces timm's normalization layers by plain ones and so drops the
    activation in them: a RegNet would silently lose its ReLUs. timm's own conversion keeps them, and is applied with
    `ModelParallelStrategy` too, which Lightning does not convert.

    Raises:
        UsageError: On the CPU, where torch has no such layer.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Convert before the strategy wraps or shards the module, once.

        Evaluation, training and evaluation each set up, and a second conversion would treat timm's layers as torch's
        and drop the activations.
        """
        if trainer.world_size == 1:
            return
        if trainer.strategy.root_device.type == "cpu":
            raise UsageError("found trainer.sync_batchnorm on the CPU, which torch cannot do; leave it off")
        for name, child in pl_module.named_children():
            if not any(isinstance(layer, nn.SyncBatchNorm) for layer in child.modules()):
                setattr(pl_module, name, convert_sync_batchnorm(child))
