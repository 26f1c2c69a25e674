"""What can be decoded of a broken file, for a report: damaged images are never used for training."""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from ssl_lightning.data.c_errors import quiet_decoders
from ssl_lightning.data.decode import header_of
from ssl_lightning.data.limits import DEFAULT_LIMITS, Unreadable
from ssl_lightning.data.manifest.places import container_of
from ssl_lightning.data.manifest.schema import from_text
from ssl_lightning.data.manifest.small_images import fitted
from ssl_lightning.data.manifest.survey import BrokenFile
from ssl_lightning.data.sources.container import open_container
from ssl_lightning.errors import DataError

_MOST_BYTES = 64 << 20
_NOT_TRIED = ("bomb:", "empty", "format")
"""Reasons of files that are never decoded: those that may take too much, and those without an image."""


def remains_of(file: BrokenFile, folder: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    """A thumbnail of what can be decoded; None where nothing can, or where decoding may take too much.

    Args:
        file: The file.
        folder: Of the manifest.
    """
    if file.reason.startswith(_NOT_TRIED) or file.size > _MOST_BYTES:
        return None
    try:
        container = open_container(container_of(file.source, file.shard, folder))
        return decoded(container.read(from_text(file.member), file.offset, file.size))
    except (DataError, OSError):
        return None


def decoded(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """A thumbnail of a damaged image of at most the usual number of pixels; missing rows are gray or black.

    Args:
        data: The file.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        header, _ = header_of(data, DEFAULT_LIMITS)
        if header.width * header.height > DEFAULT_LIMITS.max_pixels:
            return None
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        with warnings.catch_warnings(), quiet_decoders(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            image.draft("RGB", (512, 512))
            return np.asarray(fitted(image.convert("RGB")))
    except (Unreadable, OSError, ValueError, SyntaxError, IndexError, EOFError, ArithmeticError, MemoryError):
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
