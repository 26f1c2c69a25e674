"""The contract of every clusterer: features and k in, a `Clustering` out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed import ProcessGroup

from ssl_lightning.clustering.tensor_file import read_tensors, stable_bytes
from ssl_lightning.errors import DataError
from ssl_lightning.files import sweep_temporary, write_atomically


@dataclass(frozen=True, eq=False)
class Clustering:
    """Who belongs where, and how well.

    With a process group, `labels` and `distances` are this process's rows; the rest is equal everywhere.

    Attributes:
        labels: Id of the nearest returned centroid for each row; ids are never remapped.
        distances: Squared Euclidean distance to the own centroid (cosine metric: 1 - cos).
        centroids: One row a cluster (unit rows for the cosine metric).
        sizes: Rows of each cluster, over all processes; 0 for an empty one.
        objective: Sum of `distances` over all processes in each iteration, the last entry for the returned labels.
        repairs: Empty clusters that were filled again while iterating.
    """

    labels: Int[Tensor, "N"]
    distances: Float[Tensor, "N"]
    centroids: Float[Tensor, "K D"]
    sizes: Int[Tensor, "K"]
    objective: list[float] = field(default_factory=list)
    repairs: int = 0

    def save(self, path: str | Path, metadata: dict[str, str]) -> None:
        """Write a safetensors file that is whole or absent, with its sha256; equal clusterings give equal bytes.

        Args:
            path: The file.
            metadata: Where it comes from: fingerprints of data and checkpoint.
        """
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        tensors["objective"] = torch.tensor(self.objective, dtype=torch.float64)
        sweep_temporary(Path(path).parent, Path(path).name)
        write_atomically(Path(path), lambda file: file.write(stable_bytes(tensors, metadata)))

    @classmethod
    def load(cls, path: str | Path) -> tuple["Clustering", dict[str, str]]:
        """Read what `save` wrote, and its metadata.

        Raises:
            DataError: If the file is missing, damaged, changed, or not a clustering.
        """
        tensors, metadata = read_tensors(path, _EXPECTED, _ALL_TENSORS)
        _check_clustering(tensors, path)
        labels, distances, centroids, sizes = (tensors[name] for name in _TENSORS)
        return cls(labels, distances, centroids, sizes, tensors["objective"].tolist()), metadata


def load_labels(path: str | Path) -> tuple[Int[Tensor, "N"], dict[str, str]]:
    """The labels of a stage file and its metadata; the file may hold labels alone, as those of other programs do.

    Raises:
        DataError: If the file is missing, damaged or changed, or its labels are not -1 or a cluster each.
    """
    tensors, metadata = read_tensors(path, _EXPECTED, ("labels",))
    if set(_ALL_TENSORS) <= set(tensors):
        _check_clustering(tensors, path)
    else:
        labels = tensors["labels"]
        _require(labels.dim() == 1 and _is_integer(labels), f"labels of {labels.dtype} {tuple(labels.shape)}", path)
        _require(not len(labels) or int(labels.min()) >= -1, "labels below -1", path)
    return tensors["labels"], metadata


def reject_other_images(
    path: str, clustering: Clustering, metadata: dict[str, str], fingerprint: str, num_samples: int, suggestion: str
) -> None:
    """Reject clusters that were made for other images than those of a run, or for these in another order.

    Args:
        path: Where they lie, for the error.
        clustering: As `Clustering.load` gives it, with its metadata.
        metadata: Where it comes from.
        fingerprint: Of the images of the run.
        num_samples: How many they are.
        suggestion: How to make the file again.

    Raises:
        DataError: Names the file, what it was made for, and what was expected.
    """
    made_for = metadata.get("data", "")
    if made_for != fingerprint or len(clustering.labels) != num_samples:
        raise DataError(
            f"found {path} made for {len(clustering.labels)} images {made_for[:12]}, expected the {num_samples} of "
            f"this run {fingerprint[:12]}, in their order: give the data that it was made for, or {suggestion}"
        )


class Clusterer(ABC):
    """How to cluster; when is `Recluster`'s concern, and what it means is the method's.

    Attributes:
        labels_are_nearest: Whether a label is that of the nearest centroid, which then tells any image's.
    """

    labels_are_nearest: ClassVar[bool] = True

    @abstractmethod
    def __call__(
        self, features: Float[Tensor, "N D"], k: int, seed: int = 0, group: ProcessGroup | None = None
    ) -> Clustering:
        """Cluster all rows into `k` clusters; the same seed gives the same labels.

        Args:
            features: With `group`, this process's rows; concatenated in rank order they are all rows in row order.
            k: Number of clusters.
            seed: Start of the random draws.
            group: None means that `features` are all the rows, without communication.

        Raises:
            ValueError: For k < 1, more clusters than rows, or a feature that is not finite.
        """


_TENSORS = ("labels", "distances", "centroids", "sizes")
_ALL_TENSORS = (*_TENSORS, "objective")
_EXPECTED = "a whole cluster file"
LEAST_DISTANCE = -1e-3
"""1 - cos of a row and its own centroid is 0 up to rounding."""


def _check_clustering(tensors: dict[str, Tensor], path: str | Path) -> None:
    """Shapes, types and ranges: what any clusterer returns, whatever the sha256.

    Raises:
        DataError: Names the file and what is wrong in it.
    """
    _check_shapes(tensors, path)
    labels, distances, sizes = tensors["labels"], tensors["distances"], tensors["sizes"]
    _require(_is_integer(labels) and _is_integer(sizes), f"labels of {labels.dtype}, sizes of {sizes.dtype}", path)
    floats = ("distances", "centroids", "objective")
    _require(all(tensors[name].is_floating_point() for name in floats), "distances or centroids of integers", path)
    k, known = len(sizes), labels >= 0
    outside = not bool(((labels >= -1) & (labels < k)).all())
    _require(not outside, f"labels outside -1 to {k - 1}", path)
    counts = labels[known].long().bincount(minlength=k)
    _require(torch.equal(counts, sizes.long()), "sizes that are not the counts of its labels", path)
    finite = all(bool(torch.isfinite(tensors[name]).all()) for name in ("centroids", "objective"))
    _require(finite, "centroids or an objective that are not finite", path)
    own = distances[known]
    _require(bool((torch.isfinite(own) & (own >= LEAST_DISTANCE)).all()), "distances that are none", path)


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _require(holds: bool, found: str, path: str | Path) -> None:
    if not holds:
        raise DataError(f"found {path} with {found}; expected a clustering as predict writes it: make it again")


def _check_shapes(tensors: dict[str, Tensor], path: str | Path) -> None:
    dimensions = {name: tensors[name].dim() for name in _ALL_TENSORS}
    fits = (
        dimensions == {"labels": 1, "distances": 1, "centroids": 2, "sizes": 1, "objective": 1}
        and len(tensors["labels"]) == len(tensors["distances"])
        and len(tensors["centroids"]) == len(tensors["sizes"])
    )
    if not fits:
        shapes = {name: tuple(tensors[name].shape) for name in _ALL_TENSORS}
        raise DataError(f"found {path} with shapes {shapes}, which do not belong together; make it again")
