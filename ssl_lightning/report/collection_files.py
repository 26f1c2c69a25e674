"""Sections of the page of an image collection about its files: counts, places, formats and sizes, broken files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Int64

from ssl_lightning.report.cells import Cell, wall
from ssl_lightning.report.charts import bars, histogram
from ssl_lightning.report.page import Section
from ssl_lightning.words import counted

MOST_PLACES = 30
"""Sources and shards in the table."""
FEW = 5
"""Below this number, the files of a reason do not take a whole line."""
_NOTE_OF_BROKEN = (
    "Broken files are quarantined: no run uses them. A thumbnail shows what a lenient decoder finds of a damaged file; "
    "files that may take too much memory or time are not decoded."
)
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Place:
    """A source, or one of its shards.

    Attributes:
        name: Its path.
        files: Number of its rows.
        usable: Number of usable ones.
        size: In bytes.
    """

    name: str
    files: int
    usable: int
    size: int


def glance(tiles: Sequence[tuple[str, str, bool]], notes: Sequence[str]) -> Section:
    """Large numbers with their words.

    Args:
        tiles: Number, words, and whether it is a number of problems.
        notes: Sentences about the report.
    """
    boxes = "".join(
        f"<div{' class=bad' if is_bad else ''}><b>{escape(number)}</b><span>{escape(words)}</span></div>"
        for number, words, is_bad in tiles
    )
    sentences = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return Section("Collection", markup=f'<div class="tiles">{boxes}</div>{sentences}', anchor="collection")


def places_section(places: Sequence[Place], reasons: Mapping[str, int], usable: int, missing: int) -> Section:
    """Where the files are, and which of them can be used.

    Args:
        places: Sources and shards.
        reasons: Number of quarantined files by reason.
        usable: Number of usable files.
        missing: Number of files that are gone since an earlier build.
    """
    shown, rest = places[:MOST_PLACES], places[MOST_PLACES:]
    if rest:
        numbers = (sum(each.files for each in rest), sum(each.usable for each in rest), sum(each.size for each in rest))
        shown = [*shown, Place(f"{len(rest):,} more", *numbers)]
    lines = "".join(
        f'<tr><td>{escape(each.name)}</td><td class="number">{each.files:,}</td><td class="number">{each.usable:,}</td>'
        f'<td class="number">{size_text(each.size)}</td></tr>'
        for each in shown
    )
    head = "".join(f'<th class="number">{name}</th>' for name in ("files", "usable", "size"))
    table = f'<div class="table"><table><tr><th>source and shard</th>{head}</tr>{lines}</table></div>'
    named = [("usable", usable), *((f"broken: {reason}", count) for reason, count in reasons.items())]
    named += [("missing", missing)] if missing else []
    chart = bars(named, "state of the files", most=14) if len(named) > 1 else ""
    return Section("Sources and shards", markup=f'<div class="pair">{table}{chart}</div>', anchor="sources")


def formats_section(
    widths: Int64[np.ndarray, "N"],
    heights: Int64[np.ndarray, "N"],
    sizes: Int64[np.ndarray, "N"],
    words: Mapping[str, Sequence[tuple[str, int]]],
) -> Section:
    """Histograms of sizes, and numbers of formats, modes and orientations.

    Args:
        widths: Of usable images, in pixels.
        heights: Of usable images, in pixels.
        sizes: In bytes.
        words: Title to names and numbers of images, the largest first.
    """
    pixels = widths * heights
    known = pixels > 0
    charts = [
        histogram(pixels, "megapixels of an image", "megapixels", factor=1e-6),
        histogram(np.minimum(widths, heights), "short side of an image", "pixels"),
        histogram(
            widths[known] / np.maximum(heights[known], 1),
            "aspect ratio",
            "width / height",
            ticks=(0.1, 0.2, 0.5, 1, 2, 5, 10),
        ),
        histogram(sizes, "kB of an image", "kB", factor=1e-3),
    ]
    named = (bars(counts, title) for title, counts in words.items())
    note = "Of the usable images, with logarithmic axes. Dashed lines are medians."
    markup = f'<div class="charts four">{"".join(charts)}</div><div class="charts">{"".join(named)}</div>'
    return Section("Formats and sizes", note=note, markup=markup, anchor="formats")


def broken_section(reasons: Sequence[tuple[str, int, Sequence[Cell]]]) -> Section | None:
    """Broken files by reason; None without any.

    Args:
        reasons: Reason in words, number of its files, and the first of them.
    """
    if not reasons:
        return None
    parts = []
    for words, count, cells in reasons:
        left = count - len(cells)
        more = f'<p class="note">{left:,} more of this reason are not shown.</p>' if left else ""
        few = f' style="--cells:{len(cells)}"' if len(cells) < FEW else ""
        heading = f"<h3>{escape(words)}: {counted(count, 'file')}</h3>"
        parts.append(f'<div class="reason"{few}>{heading}{wall(cells)}{more}</div>')
    markup = f'<div class="reasons">{"".join(parts)}</div>'
    return Section("Broken files", note=_NOTE_OF_BROKEN, markup=markup, anchor="broken")


def size_text(size: int) -> str:
    """A number of bytes in its largest unit, such as 10.6 kB."""
    value, unit = float(size), 0
    while value >= 999.5 and unit + 1 < len(_UNITS):
        value, unit = value / 1000, unit + 1
    return f"{size} bytes" if not unit else f"{value:.3g} {_UNITS[unit]}"
