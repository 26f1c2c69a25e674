"""Features on disk: embedded once, clustered many times."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssl_lightning.clustering.tensor_file import stable_bytes
from ssl_lightning.files import write_atomically

_TENSORS = ("features", "rows", "labels")


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """Features of the pictures that could be read, and where they come from.

    Attributes:
        features: One row a picture.
        rows: Which pictures, ascending.
        labels: Their own classes, -1 where they have none; for diagnostics.
        metadata: Fingerprints of data and checkpoint, the layer, and a description of the data.
    """

    features: Float[Tensor, "n D"]
    rows: Int[Tensor, "n"]
    labels: Int[Tensor, "n"]
    metadata: dict[str, str]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that is whole or absent, making its folder."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), lambda file: file.write(stable_bytes(tensors, self.metadata)))

    @classmethod
    def load(cls, path: str | Path) -> "FeatureFile":
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is missing, damaged, or holds no features.
        """
        try:
            with safe_open(str(path), "pt") as file:
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"found {path}, which is not a whole file of features ({reason}); make one with ssl-lightning embed"
            ) from error
        lengths = {len(tensor) for tensor in tensors.values()}
        if tensors["features"].dim() != 2 or len(lengths) != 1:
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            raise ValueError(f"found {path} with shapes {shapes}, which do not belong together; make it again")
        return cls(**tensors, metadata=metadata)
