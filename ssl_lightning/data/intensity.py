"""Gray values of more than 8 bits: from integers or floats to 0..255, by depth or by an intensity window."""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from ssl_lightning.data.limits import Unreadable
from ssl_lightning.errors import UsageError

IntensityWindow = tuple[float, float] | Literal["minmax", "percentile"] | None
"""Lowest and highest value of the source, or how to find them in each image; None for the full range of the depth."""
ToGray = Callable[[np.ndarray], UInt8[np.ndarray, "h w"]]
PERCENTILES = (1.0, 99.0)
_MOST_SAMPLED = 1_000_000
"""Pixels from which percentiles are computed."""


def check_window(window: IntensityWindow) -> None:
    """Reject a window that is none.

    Raises:
        UsageError: If so.
    """
    if isinstance(window, tuple) and not (all(map(math.isfinite, window)) and window[0] < window[1]):
        raise UsageError(f"found data.intensity_window={list(window)}; expected [low, high] with low below high")


def to_gray(window: IntensityWindow, bits: int, bands: Callable[[], Iterable[np.ndarray]]) -> ToGray:
    """A function from gray values to 0..255.

    Args:
        window: Of the source.
        bits: Unsigned bits of the values; 0 for signed, 32-bit and floating-point values, which need a window.
        bands: Returns the values of the whole image in bands.

    Raises:
        Unreadable: With reason depth if a window is missing.
    """
    if window is None:
        if not bits:
            raise Unreadable("depth", "signed, 32-bit or floating-point values without data.intensity_window")
        highest = 2**bits - 1
        return lambda deep: ((deep.astype(np.uint32) * 255 + highest // 2) // highest).astype(np.uint8)
    low, high = window if isinstance(window, tuple) else _found(window, bands())
    scale = 255 / (high - low) if high > low else 0.0

    def render(deep: np.ndarray) -> UInt8[np.ndarray, "h w"]:
        values = np.nan_to_num(deep.astype(np.float64), nan=low)
        return np.rint((values - low).clip(0, max(high - low, 0)) * scale).astype(np.uint8)

    return render


def _found(window: Literal["minmax", "percentile"], bands: Iterable[np.ndarray]) -> tuple[float, float]:
    """Lowest and highest finite value of an image, or its percentiles; equal for a constant image."""
    if window == "minmax":
        ends = [(part.min(), part.max()) for part in map(_finite, bands) if part.size]
        return (float(min(low for low, _ in ends)), float(max(high for _, high in ends))) if ends else (0.0, 0.0)
    parts = [_finite(band) for band in bands]
    step = -(-sum(part.size for part in parts) // _MOST_SAMPLED) or 1
    values = np.concatenate([part[::step] for part in parts]) if parts else np.zeros(0)
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values.astype(np.float64), PERCENTILES)
    return float(low), float(high)


def _finite(band: np.ndarray) -> np.ndarray:
    return band[np.isfinite(band)]
