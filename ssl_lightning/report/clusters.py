"""Figures of a clustering: sizes, purity, contact sheets and nearest neighbors."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from ssl_lightning.report.contact_sheet import contact_sheet

NAMED = 60
"""Up to this number of bars, each one is labeled with its cluster id."""
BARS, EMPTY, LINE = "#4c78a8", "#d62728", "#444444"
"""Colors of bars, of empty clusters and errors, and of baselines."""


def draw_cluster_sizes(sizes: Int[Tensor, "K"]) -> Figure:
    """Bar chart of cluster sizes in descending order; a dashed line at the mean, red crosses for empty clusters."""
    k, empty = len(sizes), int((sizes == 0).sum())
    order = sizes.argsort(descending=True, stable=True)
    figure, axes = _bars(sizes[order].double(), order)
    even = float(sizes.double().mean())
    axes.axhline(even, color=LINE, linestyle="--", linewidth=1, label=f"all equal: {even:,.0f}")
    if empty:
        axes.scatter(
            range(k - empty, k), [0] * empty, marker="x", color=EMPTY, label=f"empty: {empty}", zorder=3, clip_on=False
        )
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{int(sizes.sum()):,} images in {k - empty:,} of {k:,} clusters")
    axes.legend(frameon=False)
    return figure


def draw_purity(purity: Float[Tensor, "K"], sizes: Int[Tensor, "K"], commonest: float) -> Figure:
    """Bar chart of cluster purity in descending order, with the fraction of the most frequent label as a baseline.

    Args:
        purity: Purity of each cluster, 0 to 1; clusters with NaN (no labeled images) are left out.
        sizes: Labeled images of each cluster, the weights of the mean.
        commonest: Purity of a single cluster, 0 to 1.

    Raises:
        ValueError: If no image is labeled.
    """
    known = (~purity.isnan()).nonzero().squeeze(1)
    if not len(known):
        raise ValueError("found no labeled images; expected at least one: purity needs labels")
    order = known[purity[known].argsort(descending=True, stable=True)]
    mean = float((purity[known] * sizes[known]).sum() / sizes[known].sum())
    figure, axes = _bars(100 * purity[order].double(), order)
    axes.axhline(100 * mean, color="#f58518", linewidth=1.5, label=f"over all images: {100 * mean:.1f} %")
    label = f"commonest label: {100 * commonest:.1f} %"
    axes.axhline(100 * commonest, color=LINE, linestyle="--", linewidth=1, label=label)
    axes.set_ylim(0, 120)  # space for the legend above full bars
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("of the commonest label, %")
    axes.set_title("Purity of the clusters")
    axes.legend(frameon=False, loc="upper right", ncols=2)
    return figure


def draw_sheets(sheets: Mapping[str, Image.Image], columns: int = 3) -> Figure:
    """Contact sheets in a grid, each under its title.

    Raises:
        ValueError: If there are no sheets.
    """
    if not sheets:
        raise ValueError("found no contact sheets; expected at least one")
    columns = min(columns, len(sheets))
    rows = -(-len(sheets) // columns)
    tallest = max(sheet.height / sheet.width for sheet in sheets.values())
    width = 12 / columns
    figure = Figure(figsize=(12, rows * (tallest * width + 0.3)), layout="constrained")
    for place, (title, sheet) in enumerate(sheets.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(sheet, interpolation="none")
        axes.set_title(title, fontsize=9, loc="left", pad=3)
        axes.set_anchor("NW")
        axes.axis("off")
    return figure


def draw_neighbors(
    queries: Sequence[UInt8[Tensor, "3 _h _w"]],
    neighbors: Sequence[UInt8[Tensor, "3 _a _b"]],
    other: Bool[Tensor, "Q n"] | None = None,
    side: int = 48,
) -> Figure:
    """One row per query image: the image, a gap, and its nearest neighbors, nearest first.

    Args:
        queries: Q images.
        neighbors: Q times n images, those of the first query first.
        other: Whether each neighbor has another class than the query; these have a red frame.
        side: Side of an image in pixels.

    Raises:
        ValueError: If the number of neighbors is not a multiple of the number of queries.
    """
    if not queries or not neighbors or len(neighbors) % len(queries):
        raise ValueError(
            f"found {len(neighbors)} neighbors of {len(queries)} images; expected the same number for each"
        )
    gap, columns = 4, len(neighbors) // len(queries)
    figure = Figure(figsize=((columns + 1.8) * 0.9, len(queries) * 0.9 + 0.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, columns])
    left.imshow(contact_sheet(queries, 1, side, gap), interpolation="none")
    left.set_title("image", fontsize=10)
    right.imshow(contact_sheet(neighbors, columns, side, gap), interpolation="none")
    title = "nearest, the closest first"
    right.set_title(title if other is None else f"{title}; red: another class", fontsize=10)
    for row, column in [] if other is None else other.nonzero().tolist():
        corner = (column * (side + gap) - 1.5, row * (side + gap) - 1.5)
        right.add_patch(Rectangle(corner, side + 2, side + 2, fill=False, edgecolor=EMPTY, linewidth=2, clip_on=False))
    for axes in (left, right):
        axes.axis("off")
    return figure


def _bars(heights: Float[Tensor, "B"], clusters: Int[Tensor, "B"]) -> tuple[Figure, Any]:
    """A bar chart; a small one has the cluster ids as labels."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.add_subplot()
    few = len(heights) <= NAMED
    axes.bar(range(len(heights)), heights.tolist(), width=0.8 if few else 1.0, color=BARS)
    axes.set_xlim(-0.8, len(heights) - 0.2)
    if few:
        axes.set_xticks(range(len(heights)), [str(cluster) for cluster in clusters.tolist()], fontsize=8)
        axes.tick_params(axis="x", rotation=90 if len(heights) > 40 else 0)
    axes.set_xlabel("cluster" if few else "clusters in this order")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
