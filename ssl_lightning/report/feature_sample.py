"""FeatureSample: features of some test images at one evaluation, with their neighbors, in a file of the run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssl_lightning.types import UNLABELLED

FILES = {"start": "features-start.safetensors", "last": "features-last.safetensors"}
"""Files in the folder of the report: of the evaluation at step 0, and of the last one."""
IMAGES = "thumbnails.jpg"
"""The images of the sample, in the folder of the report."""
TRAINING_IMAGES = ""
"""The probe set of a sample of training images: of a run that evaluates nothing."""
MOST = 1500
"""Images of a sample, at most."""


@dataclass(frozen=True, eq=False)
class FeatureSample:
    """Features of the same test images of the primary probe set at every evaluation, or of training images.

    Attributes:
        step: Optimizer steps before the evaluation.
        probe_set: Name of the probe set; `TRAINING_IMAGES` for training images, which are then both splits below.
        classes: Names of its classes.
        paths: Path or name of each image.
        rows: Row of each image in the test split, ascending.
        labels: Class of each image, -1 for none.
        features: Output of the network, not normalized.
        neighbors: Positions in the sample of the nearest images of each image, nearest first.
        queries: Positions of the images with neighbors in the training split.
        nearest: Rows of these neighbors in the training split, nearest first.
    """

    step: int
    probe_set: str
    classes: list[str]
    paths: list[str]
    rows: Int[Tensor, "N"]
    labels: Int[Tensor, "N"]
    features: Float[Tensor, "N D"]
    neighbors: Int[Tensor, "N n"]
    queries: Int[Tensor, "Q"]
    nearest: Int[Tensor, "Q m"]

    TENSORS = ("rows", "labels", "features", "neighbors", "queries", "nearest")

    def encoded(self) -> bytes:
        """The content of a file."""
        tensors = {name: getattr(self, name).contiguous() for name in self.TENSORS}
        lists = {"classes": json.dumps(self.classes), "paths": json.dumps(self.paths)}
        return save(tensors, {"step": str(self.step), "probe_set": json.dumps(self.probe_set)} | lists)

    def is_of_the_images_of(self, other: "FeatureSample") -> bool:
        """Whether two samples are of the same images of the same probe set."""
        same = (self.probe_set, self.classes, self.paths) == (other.probe_set, other.classes, other.paths)
        return same and torch.equal(self.rows, other.rows)


def read_sample(path: Path) -> FeatureSample | None:
    """The sample in a file; None if it is missing or damaged.

    Args:
        path: The file.
    """
    try:
        with safe_open(path, "pt") as file:
            known = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in FeatureSample.TENSORS}
        texts = {name: json.loads(known[name]) for name in ("probe_set", "classes", "paths")}
        is_whole = _are_texts(**texts) and _are_of_images(len(texts["paths"]), **tensors)
        return FeatureSample(step=int(known["step"]), **texts, **tensors) if is_whole else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError):
        return None


def _are_texts(probe_set: Any, classes: Any, paths: Any) -> bool:
    """Whether a file holds a name and lists of names; files of other people's runs may hold anything."""
    lists = isinstance(classes, list) and isinstance(paths, list)
    return lists and all(isinstance(text, str) for text in (probe_set, *classes, *paths))


def _are_of_images(
    count: int,
    rows: Tensor,
    labels: Tensor,
    features: Tensor,
    neighbors: Tensor,
    queries: Tensor,
    nearest: Tensor,
) -> bool:
    """Whether tensors have the types and lengths of a sample, and positions that exist."""
    dimensions = [each.dim() for each in (rows, labels, queries, features, neighbors, nearest)]
    return (
        0 < count <= MOST
        and dimensions == [1, 1, 1, 2, 2, 2]
        and all(len(each) == count for each in (rows, labels, features, neighbors))
        and len(queries) == len(nearest)
        and all(each.dtype == torch.int64 for each in (rows, labels, neighbors, queries, nearest))
        and features.dtype == torch.float32
        and int(labels.min()) >= UNLABELLED
        and all(_are_within(each, count) for each in (neighbors, queries))
    )


def _are_within(positions: Tensor, count: int) -> bool:
    return not positions.numel() or (int(positions.min()) >= 0 and int(positions.max()) < count)
