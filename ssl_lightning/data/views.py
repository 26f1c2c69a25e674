"""Views of a whole batch: crop, flip, color jitter, grayscale, blur, solarize, with counter-based random numbers.

The view of an image is a function of (seed, epoch, row, occurrence, number) and does not depend on the other rows of
the batch, their order, the device or the number of workers.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ssl_lightning.counter_rng import Purpose, uniform
from ssl_lightning.data.color import ORDERS, blur_, grayscale_, jitter_, solarize_
from ssl_lightning.data.crops import BOX_NUMBERS, affine, center_view, crop_resize, mirror_, random_boxes, unit
from ssl_lightning.errors import UsageError

__all__ = [
    "View",
    "center_view",
    "crop_boxes",
    "crop_resize",
    "expand",
    "finish_crops",
    "make_view",
    "make_views",
]


LARGEST_SIZE = 4
"""Of a view; a larger number is a side in pixels."""
SIZE_UNIT = "the side as a fraction of data.image_size"


@dataclass(frozen=True)
class View:
    """A kind of view. The configuration of a method lists its kinds, global crops first.

    Attributes:
        count: Number of views of this kind.
        size: Side, as a fraction of `data.image_size`.
        scale: Smallest and largest fraction of the image's area in a crop (`RandomResizedCrop`).
        ratio: Smallest and largest width over height of a crop (`RandomResizedCrop`).
        horizontal_flip: Probability of a horizontal flip (`RandomHorizontalFlip`).
        color_jitter: Strength of brightness, contrast, saturation (factors in 1 ± strength, at least 0) and hue (shift
            in ± strength turns, at most 0.5), applied in random order (`ColorJitter`).
        color_jitter_p: Probability of color jitter.
        grayscale: Probability of grayscale (`RandomGrayscale`).
        gaussian_blur: Probability of Gaussian blur (`GaussianBlur`). The kernel reaches three times the largest sigma
            and is at least a tenth of the side, as in SimCLR.
        sigma: Smallest and largest standard deviation of the blur, in pixels of the view (`GaussianBlur`).
        solarize: Probability of inverting values of at least 0.5 (`RandomSolarize`).
        degrees: Largest rotation in either direction; 0 for none (`RandomAffine`).
        translate: Largest translation as a fraction of the side, rounded to whole pixels; 0 for none (`RandomAffine`).

    Raises:
        UsageError: If a field is out of range.
    """

    count: int = 1
    size: float = 1.0
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: float = 0.5
    color_jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    color_jitter_p: float = 0.8
    grayscale: float = 0.2
    gaussian_blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0

    def __post_init__(self) -> None:
        _expect(self, "count", self.count >= 1, "a whole number of at least 1")
        _expect(self, "size", 0 < self.size <= LARGEST_SIZE, f"{SIZE_UNIT}, more than 0 and at most {LARGEST_SIZE}")
        _expect(self, "scale", 0 < self.scale[0] <= self.scale[1] <= 1, "0 < low <= high <= 1")
        _expect(self, "ratio", 0 < self.ratio[0] <= self.ratio[1] < math.inf, "0 < low <= high")
        for name in ("horizontal_flip", "color_jitter_p", "grayscale", "gaussian_blur", "solarize"):
            _expect(self, name, 0 <= getattr(self, name) <= 1, "a probability, 0 to 1")
        _expect(
            self,
            "color_jitter",
            min(self.color_jitter) >= 0 and self.color_jitter[3] <= 0.5,
            "strengths >= 0, that of hue <= 0.5",
        )
        _expect(self, "sigma", 0 < self.sigma[0] <= self.sigma[1] < math.inf, "0 < low <= high (pixels)")
        _expect(self, "degrees", 0 <= self.degrees <= 180, "degrees, 0 to 180")
        _expect(self, "translate", 0 <= self.translate <= 1, "a fraction of the side, 0 to 1")

    def pixels(self, image_size: int) -> int:
        """Side of this view in pixels, for this image size."""
        return max(1, round(self.size * image_size))


def _expect(view: View, name: str, holds: bool, what: str) -> None:
    if not holds:
        raise UsageError(f"found View.{name}={getattr(view, name)}; expected {what}")


def expand(views: list[View]) -> list[View]:
    """One entry per view, in order: a kind with `count` 6 becomes six kinds with `count` 1."""
    return [replace(view, count=1) for view in views for _ in range(view.count)]


class _Stream(IntEnum):
    """Indices of a row's random numbers. The values are fixed, since old runs depend on them."""

    FLIP = BOX_NUMBERS
    JITTER = BOX_NUMBERS + 1
    BRIGHTNESS = BOX_NUMBERS + 2
    HUE = BOX_NUMBERS + 5
    ORDER = BOX_NUMBERS + 6
    GRAY = BOX_NUMBERS + 7
    BLUR = BOX_NUMBERS + 8
    SIGMA = BOX_NUMBERS + 9
    SOLARIZE = BOX_NUMBERS + 10
    ROTATE = BOX_NUMBERS + 11
    RIGHT = BOX_NUMBERS + 12
    DOWN = BOX_NUMBERS + 13
    COUNT = BOX_NUMBERS + 14


def crop_boxes(
    view: View,
    heights: Int[Tensor, "B"],
    widths: Int[Tensor, "B"],
    *,
    seed: int,
    epoch: int,
    rows: Int[Tensor, "B"],
    number: int,
    occurrence: Int[Tensor, "B"] | None = None,
) -> Int[Tensor, "B 4"]:
    """Top, left, height and width of the crop of each row, with the distribution of `RandomResizedCrop`.

    Args:
        view: The view; its `scale` and `ratio` are used.
        heights: Heights of the images in pixels.
        widths: Widths of the images in pixels.
        seed: Seed of the run.
        epoch: Epoch of the run.
        rows: Rows of the images in the training set.
        number: Index of the view in the step, 0..V-1, so that two views of one kind differ.
        occurrence: Number of earlier appearances of each row in the epoch; None for 0.

    Returns:
        Pixels, on the device of `rows`.
    """
    numbers = uniform(seed, Purpose.VIEW, epoch, rows, view=number, count=BOX_NUMBERS, occurrence=occurrence)
    return random_boxes(numbers, heights, widths, view.scale, view.ratio)


def make_view(
    images: UInt8[Tensor, "B 3 h w"],
    view: View,
    size: int,
    *,
    seed: int,
    epoch: int,
    rows: Int[Tensor, "B"],
    number: int,
    occurrence: Int[Tensor, "B"] | None = None,
) -> Float[Tensor, "B 3 {size} {size}"]:
    """One view of each image: crop, affine transform, flip, color jitter in random order, grayscale, blur, solarize.

    For each image, given the parameters, the arithmetic is that of `torchvision.transforms.v2` on floats. On uint8
    images v2 truncates to whole levels after each operation, which this does not.

    Args:
        images: Images of one size, on the device of the computation.
        view: The view.
        size: Side of the result in pixels, `view.pixels(image_size)`.
        seed: Seed of the run.
        epoch: Epoch of the run.
        rows: Rows of the images in the training set. With a GPU, rows on the CPU avoid a synchronization.
        number: Index of the view in the step, 0..V-1, so that two views of one kind differ.
        occurrence: Number of earlier appearances of each row in the epoch; None for 0.

    Returns:
        Floats in 0..1, not normalized.
    """
    return make_views(
        images, view, size, seed=seed, epoch=epoch, rows=rows, numbers=range(number, number + 1), occurrence=occurrence
    )


def make_views(
    images: UInt8[Tensor, "B 3 h w"],
    view: View,
    size: int,
    *,
    seed: int,
    epoch: int,
    rows: Int[Tensor, "B"],
    numbers: range,
    occurrence: Int[Tensor, "B"] | None = None,
) -> Float[Tensor, "VB 3 {size} {size}"]:
    """Several views of one kind, concatenated: equal to repeated calls of `make_view`, in fewer kernel launches.

    For two views of 512 images on a GPU there are 560 launches instead of 1050.

    Args:
        images: Images of one size.
        view: The view; its `count` is ignored.
        size: Side of the result in pixels.
        seed: Seed of the run.
        epoch: Epoch of the run.
        rows: Rows of the images in the training set.
        numbers: Indices of the views in the step.
        occurrence: Number of earlier appearances of each row in the epoch; None for 0.
    """
    fractions = torch.cat([_numbers(seed, epoch, rows, number, occurrence) for number in numbers])
    sides = torch.tensor(images.shape[-2:]).expand(len(fractions), 2)
    boxes = random_boxes(fractions[:, :BOX_NUMBERS], sides[:, 0], sides[:, 1], view.scale, view.ratio)
    flip = None if _moves(view) else fractions[:, _Stream.FLIP] < view.horizontal_flip
    with torch.autocast(images.device.type, enabled=False):  # half precision would be visible
        return _finish(crop_resize(images.repeat(len(numbers), 1, 1, 1), boxes, size, flip), view, fractions)


def finish_crops(
    crops: UInt8[Tensor, "B 3 s s"],
    view: View,
    *,
    seed: int,
    epoch: int,
    rows: Int[Tensor, "B"],
    number: int,
    occurrence: Int[Tensor, "B"] | None = None,
) -> Float[Tensor, "B 3 s s"]:
    """All that `make_view` does after the crop, for crops that a worker process has cut.

    Args:
        crops: One square a row, not flipped.
        view: What to do.
        seed: Of the run.
        epoch: Of the run.
        rows: Rows of the images in the training set.
        number: Which view of the step.
        occurrence: Number of earlier appearances of each row in the epoch; None for 0.

    Returns:
        Floats in 0..1, not yet normalized.
    """
    numbers = _numbers(seed, epoch, rows, number, occurrence)
    if not _moves(view):
        crops = crops.clone()
        mirror_(crops, numbers[:, _Stream.FLIP] < view.horizontal_flip)
    with torch.autocast(crops.device.type, enabled=False):
        return _finish(unit(crops), view, numbers)


def _numbers(
    seed: int, epoch: int, rows: Int[Tensor, "B"], number: int, occurrence: Int[Tensor, "B"] | None
) -> Float[Tensor, "B 36"]:
    # always on the CPU: there the decisions cost nothing, and a GPU does exactly what a CPU would have done
    again = None if occurrence is None else occurrence.cpu()
    return uniform(seed, Purpose.VIEW, epoch, rows.cpu(), view=number, count=_Stream.COUNT, occurrence=again)


def _moves(view: View) -> bool:
    return view.degrees > 0 or view.translate > 0


def _finish(images: Float[Tensor, "B 3 s s"], view: View, numbers: Float[Tensor, "B 36"]) -> Float[Tensor, "B 3 s s"]:
    if _moves(view):
        images = _move(images, view, numbers)
    if view.color_jitter_p > 0 and max(view.color_jitter) > 0:
        order = ORDERS[(numbers[:, _Stream.ORDER] * len(ORDERS)).long()]
        jitter_(images, _jitter_factors(view, numbers), order, numbers[:, _Stream.JITTER] < view.color_jitter_p)
    if view.grayscale > 0:
        grayscale_(images, numbers[:, _Stream.GRAY] < view.grayscale)
    if view.gaussian_blur > 0:
        low, high = view.sigma
        chosen = numbers[:, _Stream.BLUR] < view.gaussian_blur
        blur_(images, low + (high - low) * numbers[:, _Stream.SIGMA], chosen, high)
    if view.solarize > 0:
        solarize_(images, numbers[:, _Stream.SOLARIZE] < view.solarize)
    return images


def _jitter_factors(view: View, numbers: Float[Tensor, "B 36"]) -> Float[Tensor, "B 4"]:
    strength = torch.tensor(view.color_jitter)
    low = torch.cat([(1.0 - strength[:3]).clamp(min=0.0), -strength[3:]])
    high = torch.cat([1.0 + strength[:3], strength[3:]])
    return low + (high - low) * numbers[:, _Stream.BRIGHTNESS : _Stream.HUE + 1]


def _move(images: Float[Tensor, "B 3 s s"], view: View, numbers: Float[Tensor, "B 36"]) -> Float[Tensor, "B 3 s s"]:
    either_way = 2.0 * numbers[:, _Stream.ROTATE : _Stream.DOWN + 1] - 1.0
    shift = (either_way[:, 1:] * (view.translate * images.shape[-1])).round()
    return affine(images, either_way[:, 0] * view.degrees, shift, numbers[:, _Stream.FLIP] < view.horizontal_flip)
