"""Geometry of views: random boxes, antialiased crops, affine transforms, center views.

All of these are linear interpolations, so the crops of a batch are two batched matrix products, `rows @ image @
columns`, with one small matrix per image and axis. Flips reverse the columns' matrix and cost nothing.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.data.blocks import blocks, chunks, on
from ssl_lightning.errors import UsageError

BOX_TRIES = 10
BOX_NUMBERS = 2 * BOX_TRIES + 2
"""Random numbers per box: an area and an aspect ratio per try, then the position."""

_DENSE_SIDE = 96
"""Up to this longest side a matrix product takes less time than torchvision's resize of single images (CPU)."""


def random_boxes(
    numbers: Float[Tensor, "B 22"],
    heights: Int[Tensor, "B"],
    widths: Int[Tensor, "B"],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Int[Tensor, "B 4"]:
    """Boxes with the distribution of torchvision's `RandomResizedCrop`, including its ten tries and its fallback.

    The area is uniform in `scale` and the aspect ratio log-uniform in `ratio`. The first of ten tries that fits is
    placed uniformly. If none fits, the box is the largest centered one with the nearest allowed ratio.

    Args:
        numbers: Random numbers, uniform in [0, 1).
        heights: Heights of the images in pixels.
        widths: Widths of the images in pixels.
        scale: Smallest and largest fraction of the area.
        ratio: Smallest and largest width over height.

    Returns:
        Top, left, height, width in pixels.
    """
    # float64, so that rounding differences of kernels do not change a box; NumPy, because batches of workers are small
    fractions, room = numbers.double().cpu().numpy(), torch.stack([heights, widths], 1).double().cpu().numpy()
    areas = (scale[0] + (scale[1] - scale[0]) * fractions[:, :BOX_TRIES]) * room.prod(1, keepdims=True)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = np.exp(low + (high - low) * fractions[:, BOX_TRIES : 2 * BOX_TRIES])
    tries = np.stack([np.sqrt(areas / ratios), np.sqrt(areas * ratios)], 2).round()  # [B, tries, height and width]
    fits = ((tries > 0) & (tries <= room[:, None])).all(2)
    found = np.any(fits, axis=1, keepdims=True)
    sides = np.where(found, tries[np.arange(len(tries)), fits.argmax(1)], _largest_boxes(room, ratio))
    spare = room - sides
    places = np.floor(np.where(found, fractions[:, 2 * BOX_TRIES :] * (spare + 1), spare / 2))
    return torch.from_numpy(np.concatenate([places, sides], 1).astype(np.int64)).to(numbers.device)


def _largest_boxes(room: Float[np.ndarray, "B 2"], ratio: tuple[float, float]) -> Float[np.ndarray, "B 2"]:
    """The largest centered boxes with the aspect ratio in `ratio` that is nearest to that of the whole image."""
    height, width = room.T
    shape = (width / height).clip(*ratio)
    return np.stack([np.minimum(height, width / shape), np.minimum(width, height * shape)], 1).round().clip(1)


def crop_resize(
    images: UInt8[Tensor, "B 3 h w"] | Float[Tensor, "B 3 h w"],
    boxes: Int[Tensor, "B 4"],
    size: int,
    flip: Bool[Tensor, "B"] | None = None,
) -> Float[Tensor, "B 3 s s"]:
    """Crop a box of each image and resize it to a square, bilinear with antialiasing.

    Equal to `torchvision.transforms.v2.functional.resized_crop(..., antialias=True)` for each image.

    Args:
        images: uint8, or floats in 0..1.
        boxes: Top, left, height and width in pixels, within the images; on any device.
        size: Side of the result in pixels.
        flip: Whether each result is flipped horizontally; None for no flips.

    Returns:
        Floats in 0..1, on the device of `images`.
    """
    out = torch.empty(len(images), 3, size, size, device=images.device)
    if images.device.type == "cpu" and max(images.shape[-2:]) > _DENSE_SIDE:
        _crop_one_by_one(images, boxes, flip, out)
    else:
        places = on(boxes.float(), images)
        mirrored = None if flip is None else on(flip, images)
        for part in chunks(images):
            _crop_by_matrices(images[part], places[part], None if mirrored is None else mirrored[part], out[part])
    return out


def _crop_by_matrices(images: Tensor, boxes: Tensor, flip: Tensor | None, out: Tensor) -> None:
    top, left, height, width = boxes.unbind(1)
    size = out.shape[-1]
    rows = interpolation(top, height, size, images.shape[-2])
    if images.dtype == torch.uint8:
        rows.div_(255.0)
    columns = interpolation(left, width, size, images.shape[-1], flip)
    narrow = torch.bmm(images.float().flatten(1, 2), columns.transpose(1, 2))  # [B, 3h, s]
    torch.bmm(rows.repeat_interleave(3, 0), narrow.view(-1, images.shape[-2], size), out=out.flatten(0, 1))


def interpolation(
    start: Float[Tensor, "B"], length: Float[Tensor, "B"], size: int, side: int, flip: Bool[Tensor, "B"] | None = None
) -> Float[Tensor, "B {size} {side}"]:
    """One matrix per image that resizes the pixels `start .. start + length` of an axis of `side` pixels to `size`.

    This is torch's antialiased bilinear rule: a triangle around the center of each output pixel, as wide as the output
    pixel and at least as wide as an input pixel, cut at the border of the box and normalized to sum 1.
    """
    reach = (length / size).clamp(min=1.0).unsqueeze(1)
    outputs = (torch.arange(size, device=start.device) + 0.5).expand(len(start), size)
    if flip is not None:
        outputs = torch.where(flip.unsqueeze(1), size - outputs, outputs)
    centers = (start.unsqueeze(1) + outputs * (length / size).unsqueeze(1)) / reach
    inputs = torch.arange(side, device=start.device).expand(len(start), side)
    inside = (inputs >= start.unsqueeze(1)) & (inputs < (start + length).unsqueeze(1))
    inputs = torch.where(inside, (inputs + 0.5) / reach, 1e6)  # pixels outside the box have weight 0
    far = (inputs.unsqueeze(1) - centers.unsqueeze(2)).abs_().clamp_(max=1.0)
    weights = far.neg_().add_(1.0)
    return weights.div_(weights.sum(2, keepdim=True))


def _crop_one_by_one(images: Tensor, boxes: Tensor, flip: Tensor | None, out: Tensor) -> None:
    mirrored = [False] * len(images) if flip is None else flip.tolist()
    for image, (top, left, height, width), back, result in zip(images, boxes.tolist(), mirrored, out, strict=True):
        crop = resize(image[:, top : top + height, left : left + width], *result.shape[1:])
        result.copy_(crop.flip(-1) if back else crop)
    if images.dtype == torch.uint8:
        out.div_(255.0)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize an image [3, h, w] to [3, height, width] in its dtype, bilinear with antialiasing."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image.unsqueeze(0), (height, width), mode="bilinear", antialias=True)[0]


def unit(images: UInt8[Tensor, "*B h w"] | Float[Tensor, "*B h w"]) -> Float[Tensor, "*B h w"]:
    """uint8 to floats in 0..1; floats are unchanged."""
    return images.float().div_(255.0) if images.dtype == torch.uint8 else images


def mirror_(images: UInt8[Tensor, "B 3 h w"] | Float[Tensor, "B 3 h w"], flip: Bool[Tensor, "B"]) -> None:
    """Flip the selected images horizontally, in place."""
    for _, block in blocks(images, flip):
        block.copy_(block.flip(-1))


def affine(
    images: Float[Tensor, "B 3 s s"],
    degrees: Float[Tensor, "B"],
    shift: Float[Tensor, "B 2"],
    flip: Bool[Tensor, "B"],
) -> Float[Tensor, "B 3 s s"]:
    """Rotate and translate each image about its center with black borders, then flip the selected ones.

    Equal to `torchvision.transforms.v2.functional.affine(..., scale=1, shear=[0, 0])` with bilinear interpolation.

    Args:
        images: Square images in 0..1.
        degrees: Clockwise rotation.
        shift: Translation to the right and down, in pixels.
        flip: Whether each result is flipped.
    """
    cosine, sine = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    right, down = (shift * (2.0 / images.shape[-1])).unbind(1)  # grid coordinates are -1 to 1
    mirror = 1.0 - 2.0 * flip.float()
    inverse = torch.stack(
        [
            torch.stack([cosine * mirror, sine, -(cosine * right + sine * down)], 1),
            torch.stack([-sine * mirror, cosine, sine * right - cosine * down], 1),
        ],
        1,
    )
    grid = F.affine_grid(on(inverse, images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def center_view(images: UInt8[Tensor, "B 3 h w"], size: int, fraction: float = 1.0) -> Float[Tensor, "B 3 s s"]:
    """The view for evaluation: the short side is resized to `size / fraction`, then the center is cropped.

    Args:
        images: Images of one size.
        size: Side of the result in pixels.
        fraction: Fraction of the short side that is kept; 0.875 is 224 of 256.

    Returns:
        Floats in 0..1. Images of the right size are only converted.

    Raises:
        UsageError: If `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"found fraction={fraction}; expected 0 < fraction <= 1")
    high, wide = images.shape[-2:]
    short = round(size / fraction)
    height, width = (short, int(short * wide / high)) if high <= wide else (int(short * high / wide), short)
    if images.device.type != "cpu":
        images = unit(images)  # GPUs do not resize uint8
    if (height, width) != (high, wide):
        images = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return unit(images[..., top : top + size, left : left + size])
