"""What stands on a backbone while it trains, and is thrown away afterwards."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ClusterHead(nn.Module):
    """One linear layer to K clusters that can be drawn afresh.

    Args:
        num_features: Width of the backbone's features.
        num_clusters: K.
        rectify: Open with the ReLU that was cut off the backbone, as DeepCluster does on AlexNet and VGG16.
    """

    def __init__(self, num_features: int, num_clusters: int, rectify: bool = False) -> None:
        super().__init__()
        self.rectify = rectify
        self.linear = nn.Linear(num_features, num_clusters)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Features to one logit a cluster."""
        return self.linear(features.relu() if self.rectify else features)

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Draw weights from N(0, 0.01^2) and set the biases to 0, in place: optimizers keep their parameters."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(self.linear.weight.shape).normal_(0.0, 0.01, generator=generator)
        self.linear.weight.copy_(weight)
        self.linear.bias.zero_()


class Projector(nn.Module):
    """Linear layers with ReLU, and batch normalization if asked, between features and the space of the loss.

    Args:
        num_features: Width of the backbone's features.
        hidden: Widths of the hidden layers; none for one linear layer.
        width: D of the embedding.
        norm: Batch normalization before each ReLU. SEER goes without from RegNetY-64GF on.
        last_norm: Batch normalization of the embedding too, as MoCLR has it.
        scale: What the embedding is multiplied by.
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
        self.scale = scale
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([num_features, *hidden]):
            layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs)] if norm else []), nn.ReLU(inplace=True)]
        self._hidden_layers = len(layers)
        last = [nn.Linear([num_features, *hidden][-1], width), *([nn.BatchNorm1d(width)] if last_norm else [])]
        self.layers = nn.Sequential(*layers, *last)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """Features to embeddings, not yet of unit length."""
        embedded = self.layers(features)
        return embedded if self.scale == 1.0 else self.scale * embedded

    def hidden(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B H"]:
        """What the last linear layer sees: the last hidden layer after its ReLU."""
        return self.layers[: self._hidden_layers](features)


class Prototypes(nn.Module):
    """K unit rows whose products with unit embeddings are scores: a linear layer without bias, always in float32.

    bfloat16 scores would carry four percent error once they are divided by SwAV's epsilon.

    Args:
        num_prototypes: K.
        width: D.
        learned: False for heads that only a clustering sets, such as DeepCluster-v2's.
    """

    def __init__(self, num_prototypes: int, width: int, learned: bool = True) -> None:
        super().__init__()
        rows = nn.functional.normalize(torch.randn(num_prototypes, width), dim=1)
        self.weight = nn.Parameter(rows, requires_grad=learned)

    def forward(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Scores of unit embeddings: cosines while the rows are of unit length."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return nn.functional.linear(embeddings.float(), self.weight.float())

    @torch.no_grad()
    def normalize_(self) -> None:
        """Bring every row back to unit length, in place; a row of zeros stays."""
        self.weight.copy_(nn.functional.normalize(self.weight, dim=1))

    @torch.no_grad()
    def set_(self, rows: Float[Tensor, "K D"]) -> None:
        """Replace all rows, to the bit."""
        self.weight.copy_(rows)
