"""hover_map: maps of features that show images under the pointer, as HTML for the report and for notebooks."""

import colorsys
import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_lightning.report.sprites import Sprites
from ssl_lightning.report.thumbnails import Thumbnails
from ssl_lightning.types import UNLABELLED

SIZE, MARGIN = 1000, 40
"""Width of a map, and of its empty border, in its own units. The script has the same width."""
LISTED = 30
"""Up to this number of classes, a legend lists their colors."""
TEN = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
"""Colors of up to ten classes: those of matplotlib."""
WITHOUT_CLASS = "#9aa4ae"
CROWDED = 1500
"""Above this number of points, dots are smaller."""


def hover_map(
    points: Mapping[str, Float[Tensor, "N 2"]],
    thumbnails: Thumbnails | Sprites,
    labels: Int[Tensor, "N"] | None = None,
    names: Sequence[str] = (),
    neighbors: Mapping[str, Int[Tensor, "N n"]] | None = None,
    paths: Sequence[str] = (),
    details: Sequence[str] = (),
    has_search: bool = False,
) -> str:
    """One or several maps of the same images, side by side. In a notebook: `IPython.display.HTML(hover_map(...))`.

    The maps are static without JavaScript. With it, the pointer, a tap or the arrow keys select an image: it appears
    with its class and its neighbors, and a click keeps it until the next one. Nothing is read from elsewhere, except
    the files of the thumbnails; those of `Thumbnails.of(images)` need none.

    Args:
        points: Points from `to_plane` by title. Values that are not finite lie at the center.
        thumbnails: The images in the order of the points, see `Thumbnails.of`.
        labels: Class of each image, -1 for none; None for images without classes.
        names: Names of the classes; numbers if there are none.
        neighbors: Rows of the nearest images of each image, by title.
        paths: Path or name of each image.
        details: A line about each image, below its path.
        has_search: Add a field that finds images by their paths and details.

    Raises:
        ValueError: If the maps are of different numbers of images.
    """
    count = len(next(iter(points.values()))) if points else 0
    classes = torch.full((count,), UNLABELLED) if labels is None else labels
    lengths = {len(each) for each in [*points.values(), classes, *(neighbors or {}).values()]}
    if lengths != {count} or not count:
        raise ValueError(f"found maps, classes and neighbors of {sorted(lengths)} images; expected the same number")
    placed = {title: _to_units(plane) for title, plane in points.items()}
    colors = _colors_of(classes)
    data = {
        "titles": list(points),
        "points": list(placed.values()),
        "labels": classes.tolist(),
        "names": list(names),
        "neighbors": [(neighbors or {})[title].tolist() if title in (neighbors or {}) else [] for title in points],
        "files": list(paths),
        "thumbnails": thumbnails.data(),
    }
    if details:
        data["details"] = list(details)
    maps = "".join(_map(title, plane, classes, colors) for title, plane in placed.items())
    dots = f' style="--dot:{max(4.5, 11 * math.sqrt(CROWDED / count)):.1f}"' if count > CROWDED else ""
    file = f'<img hidden alt="" src="{html.escape(thumbnails.source)}">' if isinstance(thumbnails, Thumbnails) else ""
    return (
        f'<div class="hover-map"{dots}><style>{_resource("hover_map.css")}</style>{_SEARCH if has_search else ""}'
        f'<div class="hover-map-maps">{maps}'
        f'<div class="hover-map-panel" aria-live="polite"></div></div>{_legend(colors, names)}{file}'
        f'<script type="application/json">{_json(data)}</script><script>{_resource("hover_map.js")}</script></div>'
    )


_SEARCH = (
    '<form class="hover-map-search" role="search"><input type="search" aria-label="find an image" '
    'placeholder="find an image by its name or id"><button>find</button><output></output></form>'
)


def _to_units(points: Float[Tensor, "N 2"]) -> list[list[int]]:
    """Points in whole units of the map, with one scale for both axes."""
    points = points.double()
    finite = points.isfinite().all(1)
    inner = points[finite] if finite.any() else points.new_zeros(1, 2)
    low, high = inner.amin(0), inner.amax(0)
    extent = float((high - low).amax())
    scale = (SIZE - 2 * MARGIN) / extent if math.isfinite(extent) and extent > 0 else 0.0
    units = SIZE / 2 + scale * (points - (low + high) / 2)
    return torch.where(finite.unsqueeze(1), units, SIZE / 2).nan_to_num(SIZE / 2).round().int().tolist()


def _map(title: str, points: list[list[int]], classes: Int[Tensor, "N"], colors: Mapping[int, str]) -> str:
    """A figure; the points of a class are one path of round dots."""
    dots: dict[int, list[str]] = {group: [] for group in colors}
    for (x, y), group in zip(points, classes.tolist(), strict=True):
        dots[group].append(f"M{x} {y}h0")
    paths = "".join(f'<path stroke="{colors[group]}" d="{"".join(each)}"/>' for group, each in dots.items())
    name = html.escape(title)
    return (
        f'<figure><svg viewBox="0 0 {SIZE} {SIZE}" tabindex="0" role="img" aria-label="map of features, {name}">{paths}'
        f"</svg><figcaption>{name}</figcaption></figure>"
    )


def _legend(colors: Mapping[int, str], names: Sequence[str]) -> str:
    groups = [group for group in colors if group != UNLABELLED]
    if not 0 < len(groups) <= LISTED:
        return ""
    entries = [
        f'<li style="--group:{colors[group]}">{html.escape(names[group] if group < len(names) else str(group))}</li>'
        for group in groups
    ]
    return f"<ul>{''.join(entries)}</ul>"


def _colors_of(classes: Int[Tensor, "N"]) -> dict[int, str]:
    """A color for each class; above ten, hues in golden-ratio steps, so that classes next to each other differ."""
    used: list[int] = classes[classes != UNLABELLED].unique().tolist()
    golden = (math.sqrt(5) - 1) / 2
    wheel = [colorsys.hls_to_rgb(place * golden % 1, (0.45, 0.6, 0.35)[place % 3], 0.7) for place in range(len(used))]
    several = ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in wheel]
    colors = TEN if len(used) <= len(TEN) else several
    found = {UNLABELLED: WITHOUT_CLASS} if bool((classes == UNLABELLED).any()) else {}
    return found | dict(zip(used, colors, strict=False))


def _json(data: Any) -> str:
    """JSON in ASCII without a character that could end the script around it."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _resource(name: str) -> str:
    return files("ssl_lightning.report").joinpath(name).read_text(encoding="utf-8")
