"""Feature files: features that are computed once and clustered many times."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.rows import is_finite
from ssl_lightning.clustering.tensor_file import read_tensors, stable_bytes
from ssl_lightning.errors import DataError
from ssl_lightning.files import write_atomically

_TENSORS = ("features", "rows", "labels")


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """Features of the readable images of a dataset, with their origin.

    Attributes:
        features: One row per readable image.
        rows: Row of each of these images in the dataset, ascending.
        labels: Class of each of these images, -1 where unknown.
        metadata: Fingerprints of data and checkpoint, the layer, and a description of the data.
    """

    features: Float[Tensor, "n D"]
    rows: Int[Tensor, "n"]
    labels: Int[Tensor, "n"]
    metadata: dict[str, str]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file atomically, with its SHA-256. Missing folders are created."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), lambda file: file.write(stable_bytes(tensors, self.metadata)))

    @classmethod
    def load(cls, path: str | Path) -> "FeatureFile":
        """Read a file of `save`.

        Raises:
            DataError: If the file is missing, damaged, changed, or holds no features.
        """
        expected = "a whole file of features as ssl-lightning embed writes it"
        tensors, metadata = read_tensors(path, expected, _TENSORS)
        wrong = _wrong(*(tensors[name] for name in _TENSORS))
        if wrong:
            raise DataError(f"found {path} with {wrong}; expected {expected}: make it again")
        return cls(**{name: tensors[name] for name in _TENSORS}, metadata=metadata)


def _wrong(features: Tensor, rows: Tensor, labels: Tensor) -> str:
    """Description of the first invalid content; empty if the content is valid."""
    shapes = [tuple(tensor.shape) for tensor in (features, rows, labels)]
    if (features.dim(), rows.dim(), labels.dim()) != (2, 1, 1) or len({shape[0] for shape in shapes}) != 1:
        return f"shapes {shapes} of features, rows and labels, which do not belong together"
    if not features.is_floating_point() or rows.dtype != torch.int64 or labels.dtype != torch.int64:
        return f"features, rows and labels of {features.dtype}, {rows.dtype} and {labels.dtype}"
    if len(rows) and (int(rows[0]) < 0 or not bool((rows.diff() > 0).all())):
        return "rows that are not ascending"
    if len(labels) and int(labels.min()) < -1:
        return "labels below -1"
    if not is_finite(features):
        return "features that are not finite"
    return ""
