"""Experts: frozen networks; each image passes through the one of its cluster (Divide and Contrast)."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn.utils.rnn import pad_sequence

from ssl_lightning.errors import UsageError
from ssl_lightning.models.backbones import Network

Images = Float[Tensor, "_m 3 h w"]


class Experts(nn.Module):
    """K frozen networks; every image passes through the network of its cluster only.

    Images are sorted by cluster first, so that a pass costs as much as one network for any K. The networks stay in eval
    mode, so that the output for an image does not depend on the other images of a batch.

    Args:
        networks: One per cluster, from images to embeddings of one width.
        vectorized: Compute all clusters in one pass with stacked weights (`torch.vmap`), padded to the largest cluster,
            instead of one after the other. On one thread of a CPU, five ResNet-18 of width 16 on 128 images of 32 px
            take 2.2 times as long as one network; one after the other they take 1.1 times as long.

    Raises:
        UsageError: If there is no network, or if networks of several architectures are to be stacked.
    """

    def __init__(self, networks: Sequence[nn.Module], vectorized: bool = False) -> None:
        super().__init__()
        if not networks:
            raise UsageError("found no experts; expected one network per cluster")
        # the text of a network contains its strides, which the shapes of weights do not show
        if vectorized and len({repr(network) for network in networks}) > 1:
            raise UsageError(
                "found experts of several architectures and vectorized=True, which stacks their weights; expected one "
                "architecture: give --model.vectorized false"
            )
        frozen = [deepcopy(network).eval().requires_grad_(False) for network in networks]
        self.count, self.vectorized = len(networks), vectorized
        self.networks = nn.ModuleList([_stack(frozen)] if vectorized else frozen)
        super().train(False)

    def forward(self, images: Float[Tensor, "B 3 h w"], own: Int[Tensor, "B"]) -> Float[Tensor, "B D"]:
        """Embeddings of each image by the expert of its cluster.

        Args:
            images: Normalized images.
            own: Cluster of each image, 0..K-1.
        """
        order = own.argsort(stable=True)
        parts = images[order].split(own.bincount(minlength=self.count).tolist())
        answers = self._in_one_pass(parts) if self.vectorized else self._one_by_one(parts)
        return torch.cat(answers)[order.argsort()]

    def train(self, mode: bool = True) -> "Experts":
        """Stay in eval mode."""
        return super().train(False)

    def _one_by_one(self, parts: Sequence[Images]) -> list[Float[Tensor, "_m D"]]:
        return [network(part) for network, part in zip(self.networks, parts, strict=True) if len(part)]

    def _in_one_pass(self, parts: Sequence[Images]) -> list[Float[Tensor, "_m D"]]:
        (stacked,) = self.networks
        weights = dict(stacked.named_parameters()) | dict(stacked.named_buffers())
        padded = pad_sequence(list(parts), batch_first=True)  # [K, M, 3, h, w], M images in the largest cluster
        answers = torch.vmap(lambda own, images: functional_call(stacked, own, (images,)))(weights, padded)
        return [rows[: len(part)] for rows, part in zip(answers, parts, strict=True)]


def _stack(networks: list[nn.Module]) -> nn.Module:
    """A copy of the first network with the tensors of all networks stacked along a new first dimension."""
    # vmap supports channels last neither in `contiguous` nor, without a warning, in pooling
    networks = [network.to(memory_format=torch.contiguous_format) for network in networks]
    parameters, buffers = stack_module_state(networks)
    stacked = networks[0]
    for name, tensor in (parameters | buffers).items():
        parent, _, child = name.rpartition(".")
        held = nn.Parameter(tensor, requires_grad=False) if name in parameters else tensor
        setattr(stacked.get_submodule(parent), child, held)
    for module in stacked.modules():
        if isinstance(module, Network):
            module.layout = torch.contiguous_format
    return stacked
