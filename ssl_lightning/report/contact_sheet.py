"""Contact sheets: images of a cluster in a grid."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def contact_sheet(
    images: Sequence[UInt8[Tensor, "3 _h _w"]], columns: int = 10, side: int = 48, gap: int = 2
) -> Image.Image:
    """Images of any size in a grid, each fitted into a square.

    Args:
        images: At least one image.
        columns: Images per row.
        side: Side of a square in pixels.
        gap: White pixels between squares.

    Raises:
        ValueError: If there are no images, or the grid has no columns or no size.
    """
    if not images:
        raise ValueError("found no images for a contact sheet; expected at least one")
    if columns < 1 or side < 1 or gap < 0:
        raise ValueError(f"found columns={columns}, side={side}, gap={gap}; expected at least 1, 1 and 0")
    rows = -(-len(images) // columns)
    step = side + gap
    sheet = torch.full((3, rows * step - gap, min(columns, len(images)) * step - gap), 255, dtype=torch.uint8)
    for position, image in enumerate(images):
        top, left = (position // columns) * step, (position % columns) * step
        fitted = _fit(image, side)
        height, width = fitted.shape[1:]
        top, left = top + (side - height) // 2, left + (side - width) // 2
        sheet[:, top : top + height, left : left + width] = fitted
    return Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())


def representatives(
    labels: Int[Tensor, "N"], distances: Float[Tensor, "N"] | None, cluster: int, count: int
) -> Int[Tensor, "n"]:
    """Rows that represent a cluster: exemplary ones, nearest to its centroid, then borderline ones, farthest from it.

    Args:
        labels: Cluster of each row.
        distances: Distance of each row to its centroid. None, or NaN for all members, selects evenly spaced members.
        cluster: Id of the cluster.
        count: Largest number of rows. If it is odd, there is one more of the nearest.

    Returns:
        By distance; all members if there are at most `count`. Without distances in row order.
    """
    members = (labels == cluster).nonzero().squeeze(1)
    if distances is None or bool(distances[members].isnan().all()):
        spread = torch.linspace(0, len(members) - 1, min(count, len(members)), dtype=torch.float64)
        return members[spread.round().long()]
    members = members[distances[members].argsort(stable=True)]
    farthest = count // 2
    return (
        members
        if len(members) <= count
        else torch.cat([members[: count - farthest], members[len(members) - farthest :]])
    )


def save_png(image: Image.Image, path: Path) -> None:
    """Write an image; missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _fit(image: UInt8[Tensor, "3 h w"], side: int) -> UInt8[Tensor, "3 a b"]:
    """Resize so that the longer side fills the square; small images are enlarged without smoothing."""
    height, width = image.shape[1:]
    scale = side / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    mode = F.InterpolationMode.NEAREST if scale >= 2 else F.InterpolationMode.BILINEAR
    return F.resize(image, size, interpolation=mode, antialias=mode is F.InterpolationMode.BILINEAR)
