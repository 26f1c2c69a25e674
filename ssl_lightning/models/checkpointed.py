"""Activation checkpointing that changes no number: stages whose blocks keep their input and compute the rest twice."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from timm.models.regnet import RegStage
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.regnet import AnyStage

from ssl_lightning.errors import UsageError

RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")


class CheckpointedStage(nn.Sequential):
    """A chain of blocks of which only the inputs are kept for the backward pass, where the rest is computed again.

    Names of blocks, and so the keys of checkpoints, stay as they were. The second computation draws the same random
    numbers and leaves running statistics alone: they would take up every batch twice.
    """

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Sequential has
        """The blocks one after the other."""
        for block in self:
            if self.training and torch.is_grad_enabled():
                input = checkpoint(block, input, use_reentrant=False, context_fn=partial(_contexts, block))
            else:
                input = block(input)
        return input


def checkpoint_stages(net: nn.Module, name: str) -> None:
    """Replace the stages of a ResNet or RegNet by checkpointed ones, in place.

    Args:
        net: The network.
        name: What it is called in the configuration.

    Raises:
        ValueError: If the network has no stages that are known to be plain chains of blocks.
    """
    places = [place for place, _ in stages(net)]
    if not places:
        raise UsageError(
            f"found activation_checkpointing for {name!r}; expected a ResNet or RegNet of timm or torchvision: "
            "leave it off for other networks"
        )
    for place in places:
        parent, _, child = place.rpartition(".")
        stage = CheckpointedStage(OrderedDict(net.get_submodule(place).named_children()))
        setattr(net.get_submodule(parent), child, stage)


def stages(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and modules of the plain chains of blocks in a ResNet or RegNet of timm or torchvision; none in others."""
    return [(name, module) for name, module in net.named_modules() if _is_stage(name, module)]


def _is_stage(place: str, module: nn.Module) -> bool:
    named = place.rpartition(".")[2] in RESNET_STAGES and isinstance(module, nn.Sequential)
    return named or isinstance(module, RegStage | AnyStage | CheckpointedStage)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first and the second computation."""
    return nullcontext(), _with_spare_buffers(block)


@contextmanager
def _with_spare_buffers(block: nn.Module) -> Iterator[None]:
    """Let normalization layers update copies of their statistics, which are then thrown away.

    Not by switching their tracking off: then they would keep other tensors for the backward pass than the first time.
    """
    owned = [(layer, name, buffer) for layer in block.modules() for name, buffer in layer.named_buffers(recurse=False)]
    for layer, name, buffer in owned:
        setattr(layer, name, buffer.clone())
    try:
        yield
    finally:
        for layer, name, buffer in owned:
            setattr(layer, name, buffer)
