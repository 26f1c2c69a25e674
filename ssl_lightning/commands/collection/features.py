"""Features of the images of a collection for its report: of a checkpoint, of a file, or simple statistics."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_lightning.callbacks.embed import embed_images
from ssl_lightning.checkpoints.load import build_data, load_model
from ssl_lightning.checkpoints.plain import to_plain
from ssl_lightning.clustering.feature_file import FeatureFile
from ssl_lightning.commands.embed import device_named
from ssl_lightning.data.manifest.images import ManifestImages
from ssl_lightning.data.manifest.small_images import DESCRIBED, SmallImages
from ssl_lightning.errors import DataError
from ssl_lightning.methods.checks import reject_sizes

log = logging.getLogger(__name__)
LAST = Path("checkpoints") / "last.ckpt"
"""The newest checkpoint in the folder of a run."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of some images.

    Attributes:
        rows: Rows of the dataset, ascending.
        values: One row for each.
        described: What they are, for the page.
        without: Number of sampled images without features.
    """

    rows: Int64[np.ndarray, "n"]
    values: Float[Tensor, "n D"]
    described: str
    without: int = 0


def checkpoint_at(path: str) -> str:
    """The checkpoint of a run, or a checkpoint itself.

    Raises:
        DataError: If there is none.
    """
    found = Path(path) / LAST if Path(path).is_dir() else Path(path)
    if not found.is_file():
        raise DataError(f"found no checkpoint {found}; expected the folder of a run, or a file: give --checkpoint")
    return str(found)


def of_checkpoint(manifest: Path, images: ManifestImages, checkpoint: str, rows: Int64[np.ndarray, "n"]) -> Features:
    """Features of a network, with its own preprocessing.

    Args:
        manifest: The file, or a folder of them.
        images: Its images.
        checkpoint: From `checkpoint_at`.
        rows: The images.
    """
    model = load_model(checkpoint)
    given = to_plain(asdict(model.preprocessing)) | {"path": str(manifest.absolute())}
    described = {"class_path": "ssl_lightning.data.UncuratedImages", "init_args": given}
    data = build_data(described, checkpoint)
    data.setup("predict")
    reject_sizes(model.backbone, model.constructor_arguments, data, "predict")
    model = model.to(device_named("auto"))
    found, values = embed_images(model, data, selected=torch.from_numpy(rows))
    words = f"features of the layer {model.layers[0]} of a {type(model).__name__} network ({Path(checkpoint).name})"
    return Features(found.numpy(), values, f"{words}, compared by cosine", len(rows) - len(found))


def of_file(images: ManifestImages, path: str, rows: Int64[np.ndarray, "n"]) -> Features:
    """Features of a file of `ssl-lightning embed`.

    Args:
        images: The images.
        path: The file.
        rows: The images of the report.

    Raises:
        DataError: If they are of other images, or of none of these.
    """
    held = FeatureFile.load(path)
    images.reject_other_features(held)
    kept = np.isin(held.rows.numpy(), rows)
    if not kept.any():
        raise DataError(f"found {path} with features of none of the images of the report; embed them again")
    chosen = held.rows.numpy()[kept]
    words = f"features of {Path(path).name} (layer {held.metadata.get('layer', 'unknown')}), compared by cosine"
    values = held.features[torch.from_numpy(kept)].float()
    return Features(chosen, values, words, len(rows) - len(chosen))


def of_statistics(small: SmallImages) -> Features:
    """The simple statistics that were computed with the thumbnails.

    Args:
        small: Small copies of the images.
    """
    rows, values = small.rows[small.valid], torch.from_numpy(small.statistics[small.valid])
    return Features(rows, values, f"{DESCRIBED}; compared by cosine, without a network", len(small.rows) - len(rows))
