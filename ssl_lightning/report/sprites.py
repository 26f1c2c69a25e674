"""Sprites: thumbnails of many images in files of a hundred each, which a page loads where they are shown."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

COLUMNS = 10
"""Thumbnails in a row of a file."""
PER_FILE = COLUMNS * COLUMNS
QUALITY = 85
"""Of JPEG files. Color has half the resolution, so sides are multiples of 16 pixels, as blocks then are."""


@dataclass(frozen=True, eq=False)
class Sprites:
    """Thumbnails in files next to the page.

    Attributes:
        prefix: Name of the files up to their number.
        side: Side of a thumbnail in pixels.
        places: Position of each image among all thumbnails; file by file, row by row.
        shapes: Height and width of each image, which is in the upper left corner of its thumbnail.
    """

    prefix: str
    side: int
    places: Int64[np.ndarray, "N"]
    shapes: Int64[np.ndarray, "N 2"]

    @classmethod
    def write(
        cls,
        folder: Path,
        prefix: str,
        thumbnails: UInt8[np.ndarray, "_M side side 3"],
        shapes: Int64[np.ndarray, "N 2"],
        first: Sequence[int] = (),
        rows: Int64[np.ndarray, "N"] | None = None,
    ) -> "Sprites":
        """Write the files.

        Args:
            folder: Of the page.
            prefix: Name of the files up to their number, such as `images-`.
            thumbnails: Of the images and possibly of others; they may be in a mapped file.
            shapes: Height and width of each.
            first: Images in the order in which the page shows them, so that it loads few files; others follow.
            rows: Row of each image in `thumbnails`; None if these are all.
        """
        order = np.array(list(dict.fromkeys([*first, *range(len(shapes))])), dtype=np.int64)
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        side = thumbnails.shape[1]
        for number, start in enumerate(range(0, len(order), PER_FILE)):
            images = order[start : start + PER_FILE]
            chosen = thumbnails[images if rows is None else rows[images]]
            lines = -(-len(chosen) // COLUMNS)
            cells = np.zeros((lines * COLUMNS, side, side, 3), dtype=np.uint8)
            cells[: len(chosen)] = chosen
            grid = cells.reshape(lines, COLUMNS, side, side, 3).transpose(0, 2, 1, 3, 4)
            image = Image.fromarray(np.ascontiguousarray(grid.reshape(lines * side, COLUMNS * side, 3)))
            image.save(folder / f"{prefix}{number}.jpg", quality=QUALITY)
        return cls(prefix, side, places, shapes)

    def data(self) -> dict[str, Any]:
        """What the script of a map needs to show an image."""
        return {
            "side": self.side,
            "columns": COLUMNS,
            "perFile": PER_FILE,
            "prefix": self.prefix,
            "places": self.places.tolist(),
            "shapes": self.shapes.tolist(),
        }

    def image(self, row: int, text: str = "", opens: bool = True) -> str:
        """An image as HTML, loaded when it is scrolled into view.

        Args:
            row: The image.
            text: Shown under the pointer and by screen readers.
            opens: A click shows it in the map of the page.
        """
        number, place = divmod(int(self.places[row]), PER_FILE)
        y, x = divmod(place, COLUMNS)
        height, width = (self.shapes[row] / self.side).tolist()
        words = html.escape(text)
        key = f' data-image="{row}" tabindex="0" role="button"' if opens else ""
        return (
            f'<span class="thumb"{key} title="{words}" style="--x:{x};--y:{y};--w:{width:.3g};--h:{height:.3g}">'
            f'<img loading="lazy" src="{html.escape(self.prefix)}{number}.jpg" alt="{words}"></span>'
        )
