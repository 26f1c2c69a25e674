"""Parameters spread over processes, block by block, for networks and optimizer states that one device cannot hold."""

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
    """Let every process keep its part of each parameter and gather a block's only while it computes (FSDP2), in place.

    Parameters become DTensors, whose norms are those of the whole tensor, so LARC adapts as it does on one device.
    Each block of a ResNet's or RegNet's stages is gathered by itself; other networks as a whole. Running
    statistics that are not synchronized are those of the first process at each call, as with DDP. Calling it again
    changes nothing, and a module without parameters stays as it is.

    Args:
        module: A network or head that is called as a module.
        mesh: One dimension of processes.
    """
    if isinstance(module, FSDPModule) or not any(True for _ in module.parameters()):
        return
    module.to(memory_format=torch.contiguous_format)  # parts of a channels-last tensor cannot be laid out
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
