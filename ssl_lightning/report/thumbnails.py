"""Thumbnails: small copies of many images in one image file."""

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.report.contact_sheet import contact_sheet

LARGEST = 48
"""Side of a thumbnail in pixels, at most."""
BLOCK = 8
"""Sides are multiples of the blocks of JPEG, so that no thumbnail has pixels of the next one."""
COLUMNS = 40
"""Thumbnails in a row of the file."""
QUALITY = 88
"""Of JPEG files."""


@dataclass(frozen=True)
class Thumbnails:
    """A file with thumbnails of the same size, row by row.

    Attributes:
        source: Path of the file from the page, or a data URI.
        side: Side of a thumbnail in pixels.
        columns: Thumbnails in a row.
    """

    source: str
    side: int
    columns: int = COLUMNS

    @classmethod
    def of(cls, images: Sequence[UInt8[Tensor, "3 _h _w"]], side: int = LARGEST) -> "Thumbnails":
        """Thumbnails of images of any size in a data URI, for a page or a notebook without further files.

        Args:
            images: At least one image.
            side: Side of a thumbnail in pixels.
        """
        content = as_jpeg(contact_sheet(images, COLUMNS, side, gap=0))
        return cls(f"data:image/jpeg;base64,{b64encode(content).decode()}", side, min(COLUMNS, len(images)))

    def data(self) -> dict[str, Any]:
        """What the script of a map needs to show an image."""
        return {"side": self.side, "columns": self.columns}


def as_jpeg(image: Image.Image) -> bytes:
    """The content of a JPEG file."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY, subsampling=0)
    return content.getvalue()


def shrunk(images: Float[Tensor, "B 3 s s"]) -> UInt8[Tensor, "B 3 t t"]:
    """Thumbnails of square images.

    Args:
        images: Fractions 0..1.
    """
    side = BLOCK * max(1, min(LARGEST, images.shape[-1]) // BLOCK)
    if side < images.shape[-1]:
        images = F.interpolate(images.float(), size=(side, side), mode="area")
    elif side > images.shape[-1]:
        images = F.interpolate(images.float(), size=(side, side), mode="nearest")
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def one_image(thumbnails: UInt8[Tensor, "N 3 t t"]) -> Image.Image:
    """All thumbnails in one image, `COLUMNS` in a row.

    Raises:
        ValueError: If there are none.
    """
    if not len(thumbnails):
        raise ValueError("found no thumbnails; expected at least one")
    rows = -(-len(thumbnails) // COLUMNS)
    cells = F.pad(thumbnails, (0, 0, 0, 0, 0, 0, 0, rows * COLUMNS - len(thumbnails)))
    side = thumbnails.shape[-1]
    grid = cells.view(rows, COLUMNS, 3, side, side).permute(0, 3, 1, 4, 2)
    return Image.fromarray(grid.reshape(rows * side, COLUMNS * side, 3).contiguous().numpy())
