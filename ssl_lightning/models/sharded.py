"""Sharded parameters, for networks and optimizer states that do not fit on one device."""

from functools import partial
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_lightning.models.checkpointed import stages


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Shard each parameter over processes, and gather those of a block only while it computes (FSDP2), in place.

    Parameters become DTensors with the norm of the whole tensor, so that LARC adapts learning rates as on one device.
    Each block of the stages of a ResNet or RegNet is gathered separately; other networks as a whole. Running statistics
    that are not synchronized are those of rank 0 at each call, as with DDP. Repeated calls change nothing; a module
    without parameters is unchanged.

    Args:
        module: A network or head.
        mesh: A device mesh of one dimension.
    """
    if isinstance(module, FSDPModule) or not any(True for _ in module.parameters()):
        return
    module.to(memory_format=torch.contiguous_format)  # shards of a channels-last tensor have no valid layout
    for _, stage in stages(module):
        for block in stage.children():
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    module.register_forward_pre_hook(partial(_share_running_statistics, group=mesh.get_group()))


def _share_running_statistics(module: nn.Module, _args: tuple[Any, ...], group: dist.ProcessGroup) -> None:
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
            for buffer in layer.buffers(recurse=False):
                dist.broadcast(buffer, group=group, group_src=0)
