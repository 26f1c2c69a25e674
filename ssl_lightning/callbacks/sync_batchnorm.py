"""SyncBatchNorm: batch statistics over all processes or groups of them, for networks of timm too."""

import lightning.pytorch as pl
from timm.layers import convert_sync_batchnorm
from torch import nn

from ssl_lightning.errors import UsageError
from ssl_lightning.processes import subgroup_of_this_process


class SyncBatchNorm(pl.Callback):
    """Synchronized batch normalization; the command line replaces `trainer.sync_batchnorm: true` with it.

    Lightning converts with torch's function, which replaces timm's normalization layers by plain ones and so drops the
    activation in them: a RegNet would silently lose its ReLUs. timm's own conversion keeps them, and is applied with
    `ModelParallelStrategy` too, which Lightning does not convert.

    Args:
        group_size: Number of consecutive ranks that share the statistics of their rows; null for all. The released
            code of SwAV and DeepCluster-v2 has groups of 8 of its 64 processes, SEER groups of 64.

    Raises:
        UsageError: For a group size below 1; in `setup` for one that does not divide the number of processes, and on
            the CPU, where torch has no such layer.
    """

    def __init__(self, group_size: int | None = None) -> None:
        if group_size is not None and group_size < 1:
            raise UsageError(f"found SyncBatchNorm group_size={group_size}; expected at least 1 rank, or null for all")
        self.group_size = group_size

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Convert before the strategy wraps or shards the module, once.

        Evaluation, training and evaluation each set up, and a second conversion would treat timm's layers as torch's
        and drop the activations.
        """
        if trainer.world_size == 1:
            return
        if trainer.strategy.root_device.type == "cpu":
            raise UsageError("found trainer.sync_batchnorm on the CPU, which torch cannot do; leave it off")
        size = self.group_size or trainer.world_size
        if trainer.world_size % size:
            raise UsageError(
                f"found SyncBatchNorm group_size={size} for {trainer.world_size} processes; expected a divisor of "
                "them: change group_size of SyncBatchNorm in trainer.callbacks, or the number of devices"
            )
        if size == 1:
            return
        children = [(name, child) for name, child in pl_module.named_children() if _to_convert(child)]
        group = subgroup_of_this_process(size) if children else None
        for name, child in children:
            setattr(pl_module, name, convert_sync_batchnorm(child, group))


def _to_convert(module: nn.Module) -> bool:
    layers = list(module.modules())
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return any(isinstance(layer, plain) for layer in layers) and not any(
        isinstance(layer, nn.SyncBatchNorm) for layer in layers
    )
