"""The frozen grayscale and Sobel stem that keeps DeepCluster from clustering by color."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Sobel(nn.Module):
    """Mean over the color channels, then the horizontal and the vertical Sobel filter; no learned parameters.

    Caron et al. 2018, section 4: "we use a fixed linear transformation based on Sobel filters to remove color and
    increase local contrast".
    """

    kernels: Float[Tensor, "2 1 3 3"]

    def __init__(self) -> None:
        super().__init__()
        horizontal = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        self.register_buffer("kernels", torch.stack([horizontal, horizontal.T]).unsqueeze(1))

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 2 h w"]:
        """Normalized images to two edge maps of the same size (zeros beyond the border)."""
        return nn.functional.conv2d(images.mean(dim=1, keepdim=True), self.kernels.to(images.dtype), padding=1)
