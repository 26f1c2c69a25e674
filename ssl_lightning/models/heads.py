"""What stands on a backbone while it trains, and is thrown away afterwards."""

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
    def draw(self, seed: int) -> None:
        """Draw weights from N(0, 0.01^2) and set the biases to 0, in place: optimisers keep their parameters."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(self.linear.weight.shape).normal_(0.0, 0.01, generator=generator)
        self.linear.weight.copy_(weight)
        self.linear.bias.zero_()
