"""Features on disk: embedded once, clustered many times."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.clustering.tensor_file import read_tensors, stable_bytes
from ssl_lightning.errors import DataError
from ssl_lightning.files import write_atomically

_TENSORS = ("features", "rows", "labels")


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """Features of the images that could be read, and where they come from.

    Attributes:
        features: One row an image.
        rows: Which images, ascending.
        labels: Their own classes, -1 where they have none; for diagnostics.
        metadata: Fingerprints of data and checkpoint, the layer, and a description of the data.
    """

    features: Float[Tensor, "n D"]
    rows: Int[Tensor, "n"]
    labels: Int[Tensor, "n"]
    metadata: dict[str, str]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that is whole or absent, with its sha256, making its folder."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), lambda file: file.write(stable_bytes(tensors, self.metadata)))

    @classmethod
    def load(cls, path: str | Path) -> "FeatureFile":
        """Read what `save` wrote.

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
    """What no file of features holds; nothing where all is well."""
    shapes = [tuple(tensor.shape) for tensor in (features, rows, labels)]
    if (features.dim(), rows.dim(), labels.dim()) != (2, 1, 1) or len({shape[0] for shape in shapes}) != 1:
        return f"shapes {shapes} of features, rows and labels, which do not belong together"
    if not features.is_floating_point() or rows.dtype != torch.int64 or labels.dtype != torch.int64:
        return f"features, rows and labels of {features.dtype}, {rows.dtype} and {labels.dtype}"
    if len(rows) and (int(rows[0]) < 0 or not bool((rows.diff() > 0).all())):
        return "rows that are not ascending"
    if len(labels) and int(labels.min()) < -1:
        return "labels below -1"
    # one sum is faster than a look at every value, and finite only if all of them are
    if not bool(torch.isfinite(features.sum())) and not bool(torch.isfinite(features).all()):
        return "features that are not finite"
    return ""
