"""Image sizes that a network takes, found by a forward pass without computation."""

import torch
from torch import nn
from torch.distributed.tensor import DTensor

KNOWN_SIZES = (224, 256, 299, 384, 192, 128, 112, 96, 64, 448, 518, 75, 160, 48, 32)
"""Sides in pixels that networks are made for, the most frequent ones first."""


def takes(network: nn.Module, side: int) -> bool:
    """Whether a network computes features of images of this side.

    The pass is on torch's meta device, where tensors have shapes and no values, so that it takes milliseconds for any
    network and changes no buffer and no random state. A network that cannot run there, or with sharded parameters, is
    taken to accept the size.

    Args:
        network: Called with a batch of one image.
        side: In pixels.
    """
    if any(isinstance(parameter, DTensor) for parameter in network.parameters()):
        return True  # a call would change what the hooks of the shards hold
    channels = next((layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)), 3)
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad(), torch.device("meta"), torch.compiler.set_stance("force_eager"):
            torch.func.functional_call(network, state, (torch.empty(1, channels, side, side),))
    except NotImplementedError:  # an operation without shapes on the meta device
        return True
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError):
        return False
    finally:
        for module in training:
            module.training = True
    return True


def size_taken(network: nn.Module) -> int | None:
    """A side in pixels that a network takes; None if it takes none of the usual ones."""
    return next((side for side in KNOWN_SIZES if takes(network, side)), None)
