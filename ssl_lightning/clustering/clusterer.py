"""The interface of clusterers: features and k in, a `Clustering` out."""

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
    """The result of a clustering: the cluster of each row, distances, centroids and sizes.

    With a process group, `labels` and `distances` are those of the rows of this process; the rest is equal on all.
    Labels without features have centroids of width 0 and distances of NaN, see `without_features`.

    Attributes:
        labels: Id of the nearest returned centroid for each row; ids are never remapped.
        distances: Squared Euclidean distance to that centroid (cosine metric: 1 - cos).
        centroids: One row per cluster (unit rows for the cosine metric).
        sizes: Number of rows of each cluster over all processes; 0 for an empty one.
        objective: Sum of `distances` over all processes in each iteration; the last entry is for the returned labels.
        repairs: Number of empty clusters that were filled during the iterations.
    """

    labels: Int[Tensor, "N"]
    distances: Float[Tensor, "N"]
    centroids: Float[Tensor, "K D"]
    sizes: Int[Tensor, "K"]
    objective: list[float] = field(default_factory=list)
    repairs: int = 0

    @classmethod
    def without_features(cls, labels: Int[Tensor, "N"], num_clusters: int) -> "Clustering":
        """The clustering of labels alone.

        Args:
            labels: Cluster of each row, -1 for none.
            num_clusters: K, including empty clusters.
        """
        sizes = labels[labels >= 0].bincount(minlength=num_clusters)
        return cls(labels, torch.full((len(labels),), torch.nan), torch.empty(num_clusters, 0), sizes)

    def save(self, path: str | Path, metadata: dict[str, str]) -> None:
        """Write a safetensors file atomically, with its SHA-256. Equal clusterings give equal bytes.

        Args:
            path: The file.
            metadata: Fingerprints of data and checkpoint.
        """
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        tensors["objective"] = torch.tensor(self.objective, dtype=torch.float64)
        sweep_temporary(Path(path).parent, Path(path).name)
        write_atomically(Path(path), lambda file: file.write(stable_bytes(tensors, metadata)))

    @classmethod
    def load(cls, path: str | Path) -> tuple["Clustering", dict[str, str]]:
        """Read a file of `save` and its metadata.

        Raises:
            DataError: If the file is missing, damaged, changed, or not a clustering.
        """
        tensors, metadata = read_tensors(path, _EXPECTED, _ALL_TENSORS)
        _check_clustering(tensors, path)
        labels, distances, centroids, sizes = (tensors[name] for name in _TENSORS)
        return cls(labels, distances, centroids, sizes, tensors["objective"].tolist()), metadata


def load_labels(path: str | Path) -> tuple[Int[Tensor, "N"], dict[str, str]]:
    """Read the labels of a stage file and its metadata. Files of other programs may hold labels only.

    Raises:
        DataError: If the file is missing, damaged or changed, or a label is neither -1 nor a cluster.
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
    """Reject a clustering of other images than those of a run, or of the same images in another order.

    Args:
        path: The file of the clustering, for the error.
        clustering: The clustering, from `Clustering.load`.
        metadata: Its metadata.
        fingerprint: Fingerprint of the images of the run.
        num_samples: Number of images of the run.
        suggestion: How to make the file again.

    Raises:
        DataError: With the file, the images that it was made for, and those that were expected.
    """
    made_for = metadata.get("data", "")
    if made_for != fingerprint or len(clustering.labels) != num_samples:
        raise DataError(
            f"found {path} made for {len(clustering.labels)} images {made_for[:12]}, expected the {num_samples} of "
            f"this run {fingerprint[:12]}, in their order: give the data that it was made for, or {suggestion}"
        )


class Clusterer(ABC):
    """A clustering algorithm. `Recluster` decides when it runs and the method what the result means.

    Attributes:
        labels_are_nearest: Whether the label of a row is that of its nearest centroid, so that new images can be
            assigned.
    """

    labels_are_nearest: ClassVar[bool] = True

    @abstractmethod
    def __call__(
        self, features: Float[Tensor, "N D"], k: int, seed: int = 0, group: ProcessGroup | None = None
    ) -> Clustering:
        """Cluster all rows into `k` clusters; equal seeds give equal labels.

        Args:
            features: With `group`, the rows of this process. Concatenated in rank order they are all rows in row order.
            k: Number of clusters.
            seed: Seed of all random choices.
            group: None if `features` are all rows; then there is no communication.

        Raises:
            UsageError: For k < 1 or more clusters than rows.
            DataError: For a feature that is not finite.
        """


_TENSORS = ("labels", "distances", "centroids", "sizes")
_ALL_TENSORS = (*_TENSORS, "objective")
_EXPECTED = "a whole cluster file"
LEAST_DISTANCE = -1e-3
"""Lower bound of distances: 1 - cos of a row and an equal centroid is 0 up to rounding."""


def _check_clustering(tensors: dict[str, Tensor], path: str | Path) -> None:
    """Check shapes, types and ranges, independently of the SHA-256.

    Raises:
        DataError: With the file and what is wrong in it.
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
    if not tensors["centroids"].shape[1] and bool(own.isnan().all()):
        return  # labels without features
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
