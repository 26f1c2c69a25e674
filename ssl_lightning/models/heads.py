"""Heads on top of a backbone, which are discarded after training."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.errors import UsageError


class ClusterHead(nn.Module):
    """A linear layer to K clusters that can be reset.

    Args:
        num_features: Width of the backbone's features.
        num_clusters: K.
        rectify: Apply the ReLU that was removed from the backbone first, as DeepCluster does with AlexNet and VGG16.
    """

    def __init__(self, num_features: int, num_clusters: int, rectify: bool = False) -> None:
        super().__init__()
        self.rectify = rectify
        self.linear = nn.Linear(num_features, num_clusters)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Features to one logit per cluster."""
        return self.linear(features.relu() if self.rectify else features)

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Sample weights from N(0, 0.01^2) and set biases to 0, in place, so that optimizers keep their parameters."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(self.linear.weight.shape).normal_(0.0, 0.01, generator=generator)
        self.linear.weight.copy_(weight)
        self.linear.bias.zero_()


class Projector(nn.Module):
    """Linear layers with ReLU and optional batch normalization, from features to embeddings.

    Args:
        num_features: Width of the backbone's features.
        hidden: Widths of the hidden layers; empty for one linear layer.
        width: D of the embedding.
        norm: Batch normalization before each ReLU. SEER has none from RegNetY-64GF on.
        last_norm: Batch normalization of the embedding, as in MoCLR.
        scale: Factor of the embedding.

    Raises:
        UsageError: For a width below 1.
    """

    def __init__(
        self,
        num_features: int,
        hidden: list[int],
        width: int,
        norm: bool = True,
        last_norm: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if min([*hidden, width]) < 1:
            raise UsageError(f"found hidden={list(hidden)} and an embedding of {width}; expected widths of at least 1")
        self.scale = scale
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([num_features, *hidden]):
            layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs)] if norm else []), nn.ReLU(inplace=True)]
        self._hidden_layers = len(layers)
        last = [nn.Linear([num_features, *hidden][-1], width), *([nn.BatchNorm1d(width)] if last_norm else [])]
        self.layers = nn.Sequential(*layers, *last)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """Features to embeddings, which are not normalized."""
        embedded = self.layers(features)
        return embedded if self.scale == 1.0 else self.scale * embedded

    def hidden(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B H"]:
        """The last hidden layer after its ReLU, the input of the last linear layer."""
        return self.layers[: self._hidden_layers](features)


class Prototypes(nn.Module):
    """K unit rows; their products with unit embeddings are scores. A linear layer without bias, always in float32.

    bfloat16 scores divided by SwAV's epsilon would have an error of four percent.

    Args:
        num_prototypes: K.
        width: D.
        learned: False if only a clustering sets the rows, as in DeepCluster-v2.
    """

    def __init__(self, num_prototypes: int, width: int, learned: bool = True) -> None:
        super().__init__()
        rows = nn.functional.normalize(torch.randn(num_prototypes, width), dim=1)
        self.weight = nn.Parameter(rows, requires_grad=learned)

    def forward(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Scores of unit embeddings; cosine similarities if the rows have unit length."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return nn.functional.linear(embeddings.float(), self.weight.float())

    @torch.no_grad()
    def normalize_(self) -> None:
        """Normalize every row to unit length, in place; a zero row stays zero."""
        self.weight.copy_(nn.functional.normalize(self.weight, dim=1))

    @torch.no_grad()
    def set_(self, rows: Float[Tensor, "K D"]) -> None:
        """Replace all rows exactly."""
        self.weight.copy_(rows)
