"""Cells: an image with a few lines of text, in rows and in walls; all text is escaped here."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

NOT_DECODED = '<span class="blank">not decoded</span>'


@dataclass(frozen=True)
class Cell:
    """An image with text below it.

    Attributes:
        image: HTML of the image, such as that of `Sprites.image`; empty for none.
        title: First line.
        lines: Further lines.
        is_marked: Whether the title is highlighted.
    """

    image: str
    title: str
    lines: Sequence[str] = ()
    is_marked: bool = False


def wall(cells: Sequence[Cell]) -> str:
    """Cells in as many columns as the page has space for."""
    return f'<div class="wall">{"".join(map(_cell, cells))}</div>'


def strip(cells: Sequence[Cell]) -> str:
    """Cells side by side, which scroll where they are wider than the page."""
    return f'<div class="row">{"".join(map(_cell, cells))}</div>'


def sheet(images: Sequence[str]) -> str:
    """Images without text.

    Args:
        images: HTML of each.
    """
    return f'<div class="sheet">{"".join(f"""<div class="cell">{image}</div>""" for image in images)}</div>'


def _cell(cell: Cell) -> str:
    image = f'<div class="cell">{cell.image or NOT_DECODED}</div>'
    kind = ' class="kept"' if cell.is_marked else ""
    lines = "".join(f"<small>{html.escape(line)}</small>" for line in cell.lines)
    return f"<div>{image}<b{kind}>{html.escape(cell.title)}</b>{lines}</div>"
