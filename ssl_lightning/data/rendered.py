"""Synthetic images: a striped shape on a shaded background; its form and stripes are the class, all else is random.

Only operations with results defined by IEEE 754 are used (no sine, no fused sums), so that images are equal on every
machine.
"""

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ssl_lightning.counter_rng import Purpose, uniform
from ssl_lightning.errors import UsageError

_SHAPES = 5
_DIRECTIONS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.75, 0.75], [0.75, -0.75]])
_PERIODS = torch.tensor([0.7, 0.35, 1.2])
MOST_CLASSES = _SHAPES * len(_DIRECTIONS) * len(_PERIODS)
_CHUNK = 256


def render_images(rows: Int[Tensor, "N"], labels: Int[Tensor, "N"], size: int, seed: int) -> UInt8[Tensor, "N 3 s s"]:
    """One image per row, a function of (seed, row, label, size).

    Position, size and colors of the shape, the phase of its stripes, colors and direction of the background, and the
    noise are random. The class determines the shape and the direction and period of its stripes.

    Args:
        rows: Keys of the random numbers; any integers.
        labels: Class of each row, below `MOST_CLASSES`.
        size: Side in pixels.
        seed: Another seed gives other images of the same classes.

    Raises:
        UsageError: If a label has no shape.
    """
    if len(labels) and int(labels.max()) >= MOST_CLASSES:
        raise UsageError(f"found {int(labels.max()) + 1} classes; at most {MOST_CLASSES} exist: lower data.classes")
    if len(rows) == 0:
        return torch.empty(0, 3, size, size, dtype=torch.uint8)
    parts = zip(rows.split(_CHUNK), labels.split(_CHUNK), strict=True)
    return torch.cat([_draw(part, label, size, seed) for part, label in parts])


def _draw(rows: Int[Tensor, "B"], labels: Int[Tensor, "B"], size: int, seed: int) -> UInt8[Tensor, "B 3 s s"]:
    chance = uniform(seed, Purpose.SYNTHETIC, 0, rows, count=20)[:, :, None, None]  # [B, 20, 1, 1]
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    place, reach = chance[:, 0:2] * 0.8 - 0.4, chance[:, 2] * 0.35 + 0.4
    across = (axis[None, None, :] - place[:, 0]) / reach  # [B, 1, s], in units of the shape's reach
    down = (axis[None, :, None] - place[:, 1]) / reach  # [B, s, 1]
    inside = _shape(labels % _SHAPES, across.abs(), down.abs()).unsqueeze(1)  # [B, 1, s, s]
    stripes = _stripes(labels // _SHAPES, across, down, chance[:, 3]).unsqueeze(1)
    shape = _mix(chance[:, 4:7], chance[:, 7:10], stripes)
    slope = (axis[None, :, None] * (chance[:, 16] - 0.5) + axis[None, None, :] * (chance[:, 17] - 0.5) + 1) * 0.5
    ground = _mix(chance[:, 10:13], chance[:, 13:16], slope.unsqueeze(1))
    noise = uniform(seed, Purpose.SYNTHETIC, 1, rows, count=3 * size * size).view(-1, 3, size, size) - 0.5
    image = torch.where(inside, shape, ground) + noise * (chance[:, 18:19] * 0.25)
    return (image.clamp(0, 1) * 255).floor().byte()


def _shape(
    kind: Int[Tensor, "B"], across: Float[Tensor, "B 1 s"], down: Float[Tensor, "B s 1"]
) -> Bool[Tensor, "B s s"]:
    square = across * across + down * down
    wide, narrow = torch.maximum(across, down), torch.minimum(across, down)
    disc, box, diamond = square < 1, wide < 0.85, across + down < 1.2
    ring, cross = (square < 1.1) & (square > 0.3), (narrow < 0.33) & (wide < 1.1)
    forms = torch.stack([disc, box, diamond, ring, cross], 1)  # [B, 5, s, s]
    return forms[torch.arange(len(kind)), kind]


def _stripes(
    kind: Int[Tensor, "B"], across: Float[Tensor, "B 1 s"], down: Float[Tensor, "B s 1"], phase: Float[Tensor, "B 1 1"]
) -> Float[Tensor, "B s s"]:
    direction = _DIRECTIONS[kind % len(_DIRECTIONS)]
    period = _PERIODS[kind // len(_DIRECTIONS)][:, None, None]
    waves = (across * direction[:, :1, None] + down * direction[:, 1:, None]) / period + phase
    return ((waves - waves.floor()) * 2 - 1).abs()  # a triangle wave between 0 and 1


def _mix(
    first: Float[Tensor, "B 3 1 1"], second: Float[Tensor, "B 3 1 1"], share: Float[Tensor, "B 1 s s"]
) -> Float[Tensor, "B 3 s s"]:
    return first * (1 - share) + second * share
