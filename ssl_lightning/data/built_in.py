"""Datasets without files: scikit-learn's handwritten digits, and synthetic shapes."""

from functools import cache

import numpy as np
import torch

from ssl_lightning.data.dataset import ImageDataset, InMemoryImages
from ssl_lightning.data.rendered import render_images
from ssl_lightning.errors import UsageError

MOST_MEMORY = 4_000_000_000
"""Largest size in bytes of a synthetic split, which is held in memory."""


@cache
def open_digits(split: str) -> ImageDataset:
    """One split of the digits, 8 x 8 pixels: row i is a test image if i % 5 == 4 (359 rows), else for training (1,438).

    Raises:
        UsageError: If the split is neither "train" nor "test".
    """
    _check_split("digits", split)
    from sklearn.datasets import load_digits  # takes a second to import

    pixels, targets = load_digits(return_X_y=True)
    levels = np.asarray(pixels).reshape(-1, 8, 8)  # 0..16
    chosen = (np.arange(len(levels)) % 5 == 4) == (split == "test")
    gray = torch.from_numpy(np.rint(levels[chosen] * (255 / 16)).astype(np.uint8))
    images = gray.unsqueeze(1).repeat(1, 3, 1, 1)
    labels = torch.from_numpy(np.asarray(targets)[chosen])
    return InMemoryImages(images, labels, [str(digit) for digit in range(10)], title=f"digits/{split}")


@cache
def open_synthetic(
    split: str, num_samples: int = 1024, num_classes: int = 10, size: int = 32, seed: int = 0
) -> ImageDataset:
    """One split of synthetic images; row i has class i % num_classes.

    Args:
        split: "train" or "test"; the two are disjoint for any numbers of images.
        num_samples: Images in the split.
        num_classes: At most `rendered.MOST_CLASSES`.
        size: Side in pixels.
        seed: Another seed gives other images of the same classes.

    Raises:
        UsageError: If the split is neither "train" nor "test", or there are too many classes, or the images do not fit
            into `MOST_MEMORY`.
    """
    _check_split("synthetic", split)
    if (memory := 3 * num_samples * size * size) > MOST_MEMORY:
        raise UsageError(
            f"found {num_samples} synthetic images of {size} pixels, {memory:,} bytes; expected at most {MOST_MEMORY:,}"
        )
    rows = torch.arange(num_samples)
    labels = rows % num_classes
    images = render_images(rows if split == "train" else -1 - rows, labels, size, seed)
    classes = [str(label) for label in range(num_classes)]
    return InMemoryImages(images, labels, classes, title=f"synthetic/{split}")


def _check_split(source: str, split: str) -> None:
    if split not in ("train", "test"):
        raise UsageError(f"found {source}/{split}; expected {source}/train or {source}/test")
