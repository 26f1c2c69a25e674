"""The contract of every clusterer: features and k in, a `Clustering` out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed import ProcessGroup

from ssl_lightning.clustering.tensor_file import stable_bytes
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
        """Write a safetensors file that is whole or absent; equal clusterings give equal bytes.

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
            ValueError: If the file is missing, damaged, or not a clustering.
        """
        try:
            with safe_open(str(path), "pt") as file:
                tensors = {name: file.get_tensor(name) for name in (*_TENSORS, "objective")}
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"found {path}, which is not a whole cluster file ({reason}); make it again") from error
        _check_shapes(tensors, path)
        objective = tensors.pop("objective").tolist()
        return cls(**tensors, objective=objective), metadata


def refuse_other_pictures(
    path: str, clustering: Clustering, metadata: dict[str, str], fingerprint: str, num_samples: int, remedy: str
) -> None:
    """Refuse clusters that were made for other pictures than those of a run, or for these in another order.

    Args:
        path: Where they lie, for the error.
        clustering: As `Clustering.load` gives it, with its metadata.
        metadata: Where it comes from.
        fingerprint: Of the pictures of the run.
        num_samples: How many they are.
        remedy: How to make the file again.

    Raises:
        ValueError: Names the file, what it was made for, and what was expected.
    """
    made_for = metadata.get("data", "")
    if made_for != fingerprint or len(clustering.labels) != num_samples:
        raise ValueError(
            f"found {path} made for {len(clustering.labels)} pictures {made_for[:12]}, expected the {num_samples} of "
            f"this run {fingerprint[:12]}, in their order: give the data that it was made for, or {remedy}"
        )


class Clusterer(ABC):
    """How to cluster; when is `Recluster`'s concern, and what it means is the method's.

    Attributes:
        labels_are_nearest: Whether a label is that of the nearest centroid, which then tells any picture's.
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


def _check_shapes(tensors: dict[str, Tensor], path: str | Path) -> None:
    dimensions = {name: tensors[name].dim() for name in _TENSORS}
    fits = (
        dimensions == {"labels": 1, "distances": 1, "centroids": 2, "sizes": 1}
        and len(tensors["labels"]) == len(tensors["distances"])
        and len(tensors["centroids"]) == len(tensors["sizes"])
    )
    if not fits:
        shapes = {name: tuple(tensors[name].shape) for name in _TENSORS}
        raise ValueError(f"found {path} with shapes {shapes}, which do not belong together; make it again")
