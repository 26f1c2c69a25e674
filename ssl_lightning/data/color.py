"""Color operations of views: jitter, grayscale, blur, solarize; in place, on floats in 0..1, for selected images.

The arithmetic is that of `torchvision.transforms.v2.functional` without rounding to uint8 between operations.
Parameters are on the CPU for any device of the images, so that selecting rows needs no synchronization with a GPU.
"""

import math
from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.data.blocks import blocks, on

GRAY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in torchvision's grayscale (ITU-R 601-2)."""

_CONTRAST, _SATURATION, _HUE = 1, 2, 3

_BAND = 32
"""Rows of a banded matrix per product."""

ORDERS = torch.tensor(list(permutations(range(4))))
"""The 24 orders of brightness 0, contrast 1, saturation 2 and hue 3."""


def jitter_(
    images: Float[Tensor, "B 3 h w"],
    factors: Float[Tensor, "B 4"],
    order: Int[Tensor, "B 4"],
    chosen: Bool[Tensor, "B"],
) -> None:
    """Brightness, contrast, saturation and hue of the selected images, each in its own random order.

    For each image this is `v2.functional.adjust_{brightness,contrast,saturation,hue}` in the sampled order. The first
    three are one blend with different weights, so only the position of the hue differs between images. They are
    processed in four groups, in blocks that stay in the cache from the first operation to the last.

    Args:
        images: Changed in place.
        factors: Brightness, contrast, saturation (1 is the identity), hue (a shift in turns, -0.5..0.5, 0 is the
            identity).
        order: Order of the four operations.
        chosen: Whether each image is changed.
    """
    hue_slot = (order == _HUE).int().argmax(1)
    slots = on(_blend_weights(factors, order), images)  # [B, 4, 3]
    turns = on(factors[:, _HUE], images)
    turned, far = (bool((factors[:, _HUE].abs() > limit).any()) for limit in (0, 1 / 3))
    for slot in range(4):
        for rows, block in blocks(images, chosen & (hue_slot == slot)):
            for step in range(4):
                if step != slot:
                    blend_(block, slots[rows, step])
                elif turned:
                    hue_(block, turns[rows], far)


def _blend_weights(factors: Float[Tensor, "B 4"], order: Int[Tensor, "B 4"]) -> Float[Tensor, "B 4 3"]:
    """Weights of each operation: of the image, of the gray value of the pixel, and of the mean gray value."""
    keep = factors.gather(1, order)
    return torch.stack([keep, (1.0 - keep) * (order == _SATURATION), (1.0 - keep) * (order == _CONTRAST)], 2)


def blend_(images: Float[Tensor, "B 3 h w"], weights: Float[Tensor, "B 3"]) -> None:
    """`v2.functional.adjust_{brightness,contrast,saturation}`, in place, as one formula.

    Args:
        images: Changed in place.
        weights: Weights of the image, of the gray value of each pixel and of the mean gray value. Brightness f is (f,
            0, 0), contrast f is (f, 0, 1 - f), saturation f is (f, 1 - f, 0).
    """
    keep, own, mean = weights.view(-1, 3, 1, 1, 1).unbind(1)
    gray = grayscale(images)
    level = gray.mean((2, 3), keepdim=True).mul_(mean)
    torch.addcmul(gray.mul_(own).add_(level), images, keep, out=images).clamp_(0.0, 1.0)


def hue_(images: Float[Tensor, "B 3 h w"], turns: Float[Tensor, "B"], far: bool = True) -> None:
    """`v2.functional.adjust_hue` with one shift per image, in place, without conversion to HSV.

    A change of the hue preserves the largest and smallest channel, so with chroma c = max - min only the angle matters.
    In sixths of a turn, with red at 0, green at 2 and blue at -2, it is t = ±(c + g + b - r - min) / c, with the sign
    of g - b. In each sextant this sum is the usual piecewise formula. Back, with u = t + shift - (angle of the
    channel), each channel is max - c·clamp(2 - ||u| - 3|, 0, 1), which holds for |u| <= 7.

    Args:
        images: Changed in place.
        turns: Shifts within -0.5..0.5.
        far: False if no shift exceeds a third of a turn, which saves a wrap.
    """
    red, green, blue = images.unbind(1)
    largest = torch.maximum(red, green)
    largest = torch.maximum(largest, blue, out=largest)
    spare = torch.minimum(red, green)  # first the minimum; reusing one plane keeps it in the cache
    spare = torch.minimum(spare, blue, out=spare)
    chroma = largest - spare
    angle = torch.add(green, blue).sub_(red).sub_(spare).add_(chroma).copysign_(torch.sub(green, blue, out=spare))
    angle.div_(torch.clamp(chroma, min=1e-12, out=spare)).add_(6.0 * turns.view(-1, 1, 1))
    if far:
        angle.sub_(torch.div(angle, 6.0, out=spare).round_(), alpha=6.0)  # back to -3..3
    channels = torch.tensor([0.0, 2.0, -2.0]).view(1, 3, 1, 1)
    torch.sub(angle.unsqueeze(1), on(channels, images), out=images)
    images.abs_().sub_(3.0).abs_().clamp_(1.0, 2.0)
    torch.addcmul(largest.sub_(chroma, alpha=2.0).unsqueeze(1), images, chroma.unsqueeze(1), out=images)


def grayscale(images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 1 h w"]:
    """`v2.functional.rgb_to_grayscale` with one output channel."""
    red, green, blue = images.unbind(1)
    return red.mul(GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2]).unsqueeze(1)


def grayscale_(images: Float[Tensor, "B 3 h w"], chosen: Bool[Tensor, "B"]) -> None:
    """Convert the selected images to grayscale, in place."""
    for _, block in blocks(images, chosen):
        block.copy_(grayscale(block))


def solarize_(images: Float[Tensor, "B 3 h w"], chosen: Bool[Tensor, "B"]) -> None:
    """Invert values of at least 0.5 in the selected images, in place (`v2.functional.solarize` at 0.5)."""
    for _, block in blocks(images, chosen):
        block.copy_(torch.where(block >= 0.5, 1.0 - block, block))


def blur_taps(side: int, largest_sigma: float) -> int:
    """Kernel size in pixels, odd: three sigma to each side, at least a tenth of the side, at most the side.

    SimCLR's tenth (23 for 224 pixels) cuts the kernel off on small images: 3 taps at 32 pixels leave twice the noise of
    the whole kernel at sigma 2.

    Args:
        side: Side of the images in pixels.
        largest_sigma: Of the kind of view, in pixels, so that a view does not depend on the other images of the batch.
    """
    odd_side = (side + 1) // 2 * 2 - 1
    return min(odd_side, max(2 * math.ceil(3 * largest_sigma) + 1, int(0.1 * side) | 1))


def blur_(
    images: Float[Tensor, "B 3 s s"], sigma: Float[Tensor, "B"], chosen: Bool[Tensor, "B"], largest_sigma: float
) -> None:
    """`v2.functional.gaussian_blur` with `blur_taps` taps and one sigma (pixels) per image, in place.

    One product with a banded matrix per image for the columns and one for the rows, including the reflection at the
    borders. Grouped convolutions take two to four times as long on a CPU, shifted sums five times.
    """
    taps = blur_taps(images.shape[-1], largest_sigma)
    sigma = on(sigma, images)
    for rows, block in blocks(images, chosen):
        matrices = _blur_matrices(sigma[rows], taps, images.shape[-1])
        across = _banded_product(matrices, block.flatten(1, 2).mT, taps // 2).mT.unflatten(1, (3, -1))
        down = _banded_product(matrices.repeat_interleave(3, 0), across.flatten(0, 1), taps // 2)
        block.copy_(down.view_as(block))


def _blur_matrices(sigma: Float[Tensor, "B"], taps: int, side: int) -> Float[Tensor, "B {side} {side}"]:
    half = taps // 2
    distances = torch.arange(-half, half + 1, device=sigma.device)
    kernels = torch.softmax(-0.5 * (distances / sigma.unsqueeze(1)).square(), 1)
    kernels = F.threshold(kernels, 1e-9, 0.0)  # arithmetic on denormal numbers takes about ten times as long
    wide = sigma.new_zeros(len(sigma), side, side + 2 * half)
    wide.as_strided((len(sigma), side, taps), (wide.stride(0), wide.stride(1) + 1, 1)).copy_(kernels.unsqueeze(1))
    before, matrices, after = wide.split([half, side, half], 2)
    matrices = matrices.clone()
    matrices[:, :, 1 : half + 1] += before.flip(2)
    matrices[:, :, side - 1 - half : side - 1] += after.flip(2)
    return matrices


def _banded_product(matrices: Float[Tensor, "B s s"], columns: Float[Tensor, "B s n"], reach: int) -> Tensor:
    """`matrices @ columns` [B, s, n] for matrices that are zero farther than `reach` from the diagonal."""
    side = matrices.shape[-1]
    out = torch.empty_like(columns)
    for start in range(0, side, _BAND):
        stop, low, high = start + _BAND, max(0, start - reach), min(side, start + _BAND + reach)
        torch.bmm(matrices[:, start:stop, low:high], columns[:, low:high], out=out[:, start:stop])
    return out
