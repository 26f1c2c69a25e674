"""95 % intervals of accuracies, from the number of test images."""

import math
import re
from collections.abc import Mapping

TEST_IMAGES = "test_images"
"""Metric with the number of evaluated test images of a probe set."""
HALF_WIDTH = "ci95"
"""Last part of the name of a half-width; the rest is the name of the metric."""
NORMAL = 1.959964
"""97.5 % quantile of the standard normal distribution."""
READ_AS = (
    "± is the half-width of a 95 % interval: over test images (Wilson's, its wider side), or over episodes for "
    "few-shot results. It covers the choice of the test images, not the spread over seeds of training"
)
_SHARE = re.compile(r"[^/]+/top\d+|lowshot/[^/]+pct")
"""Metrics that are shares of test images, without the prefix of the probe set."""


def half_width(share: float, images: int) -> float:
    """Distance from a share to the farther end of its 95 % Wilson interval; above 0 also for shares of 0 and 1.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Args:
        share: Fraction of the images, 0..1.
        images: Number of images, at least 1.
    """
    square = NORMAL**2
    center = (share + square / (2 * images)) / (1 + square / images)
    half = NORMAL * math.sqrt(share * (1 - share) / images + square / (4 * images**2)) / (1 + square / images)
    return half + abs(center - share)


def with_intervals(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers of an evaluation, with `<metric>/ci95` for each share of a known number of test images.

    Args:
        numbers: Metrics by name, such as `eval/knn/top1` and `eval/test_images`.
    """
    found = dict(numbers)
    for count in [name for name in numbers if name.endswith(f"/{TEST_IMAGES}") and numbers[name] >= 1]:
        prefix, images = count.removesuffix(TEST_IMAGES), int(numbers[count])
        for name, share in numbers.items():
            is_share = name.startswith(prefix) and _SHARE.fullmatch(name.removeprefix(prefix))
            if is_share and 0 <= share <= 1:
                found[f"{name}/{HALF_WIDTH}"] = half_width(share, images)
    return found
