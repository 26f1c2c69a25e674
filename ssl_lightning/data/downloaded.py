"""CIFAR-10, CIFAR-100 and STL-10 in the folders of torchvision's downloads; this module downloads nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets

from ssl_lightning.data.dataset import ImageDataset, InMemoryImages
from ssl_lightning.errors import DataError, UsageError

_CLASSES = {"cifar-10-batches-py": "CIFAR10", "cifar-100-python": "CIFAR100", "stl10_binary": "STL10"}


def is_downloaded(path: str) -> bool:
    """Whether the last folder of a path is one of torchvision's downloads."""
    return Path(path).name in _CLASSES


def open_downloaded(path: str, split: str, locate: Callable[[str], list[Path]]) -> ImageDataset:
    """One split of a dataset that torchvision has downloaded.

    Args:
        path: Ends in `cifar-10-batches-py`, `cifar-100-python` or `stl10_binary`.
        split: "train" or "test"; STL-10 also has "unlabeled" and "train+unlabeled".
        locate: Finds the folder.

    Raises:
        DataError: If the folder is missing (with the command that downloads it) or incomplete, or has no such split.
    """
    name = _CLASSES[Path(path).name]
    known = ("train", "test", "unlabeled", "train+unlabeled") if name == "STL10" else ("train", "test")
    if split not in known:
        raise UsageError(f"{path} has no split {split!r}, only {', '.join(known)}: give one of these")
    try:
        root = locate(path)[0].parent
        data = _load(name, root, split)
    except (ValueError, RuntimeError, OSError) as error:
        folder = os.environ.get("SSL_LIGHTNING_DATA", "data")
        recipe = f"python -c \"from torchvision.datasets import {name}; {name}('{folder}', download=True)\""
        raise DataError(f"{path} is not there or not whole ({error}): get it by {recipe}") from error
    images, labels, classes = data
    return InMemoryImages(torch.from_numpy(images), torch.from_numpy(labels), classes, title=f"{path}/{split}")


def _load(name: str, root: Path, split: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    if name == "STL10":
        stl = datasets.STL10(str(root), split=split, download=False)
        labels = np.full(len(stl.data), -1) if stl.labels is None else stl.labels
        return stl.data, labels.astype(np.int64), stl.classes
    cifar = getattr(datasets, name)(str(root), train=split == "train", download=False)
    images = np.ascontiguousarray(cifar.data.transpose(0, 3, 1, 2))
    return images, np.array(cifar.targets), cifar.classes
