"""Units of a network: filters of the first layer, and images that activate a unit most."""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ssl_lightning.errors import UsageError
from ssl_lightning.inspect.embedded import Features
from ssl_lightning.inspect.run import Run


def filters(run: Run) -> UInt8[Tensor, "F 3 h w"]:
    """The filters of the first convolution as images, each scaled to the full range of gray or color values.

    A filter of three input channels is one image in color. Of other numbers of channels, such as the gradients of a
    Sobel stem, each channel is a gray image.

    Args:
        run: From `load_run`.

    Raises:
        UsageError: If the network has no convolution.
    """
    first = next((part for part in run.method.backbone.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None:
        raise UsageError(f"found no convolution in the backbone of {run.name}; expected one, with filters")
    weight = first.weight.detach().float()
    if weight.shape[1] != 3:
        weight = weight.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
    low, high = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
    return (255 * (weight - low) / (high - low).clamp(min=1e-12)).round().to(torch.uint8)


def varying_units(found: Features, count: int = 8) -> Int[Tensor, "u"]:
    """The units with the largest standard deviation over the images, the largest first.

    Args:
        found: From `features`.
        count: Number of units.
    """
    return found.values.double().std(0, correction=0).argsort(descending=True, stable=True)[:count]


def strongest(found: Features, unit: int, count: int = 12) -> tuple[Int[Tensor, "c"], Float[Tensor, "c"]]:
    """The rows of the images that activate a unit most, the strongest first, and the values.

    Args:
        found: From `features`, at any layer or stage.
        unit: Number of the unit, from 0.
        count: Number of images.

    Raises:
        UsageError: If there is no such unit.
    """
    width = found.values.shape[1]
    if not 0 <= unit < width:
        raise UsageError(f"found unit={unit}; expected 0 to {width - 1} in layer {found.layer}")
    order = found.values[:, unit].argsort(descending=True, stable=True)[:count]
    return found.rows[order], found.values[order, unit]
