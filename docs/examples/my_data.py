"""A data source: images and labels in the arrays of an .npz file."""

from dataclasses import dataclass

import numpy as np
import torch

from ssl_lightning.data import ImageModule
from ssl_lightning.data.dataset import ImageDataset, InMemoryImages
from ssl_lightning.data.module import Probes


@dataclass(kw_only=True, eq=False)
class ArrayImages(ImageModule):
    """Arrays `train`, `test` (uint8, N x height x width x 3) and `train_labels`, `test_labels` of one file.

    Args:
        path: The file.
    """

    path: str

    def open_training(self) -> ImageDataset:
        """The images of `train`."""
        return self._split("train")

    def default_probe_sets(self) -> Probes:
        """The two splits, for the probes."""
        return {"arrays": (self._split("train"), self._split("test"))}

    def _split(self, name: str) -> ImageDataset:
        with np.load(self.path) as arrays:
            images = torch.from_numpy(arrays[name]).permute(0, 3, 1, 2).contiguous()
            labels = torch.from_numpy(arrays[f"{name}_labels"]).long()
        classes = [str(number) for number in range(int(labels.max()) + 1)]
        return InMemoryImages(images, labels, classes, title=name)
