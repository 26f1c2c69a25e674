"""Curves of a run's metrics over its epochs."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

PANELS = (
    ("Clusters", ("cluster/nmi_labels", "cluster/nmi_previous", "cluster/reassigned")),
    ("Judged", ("eval/knn/top1", "eval/linear/top1", "eval/fewshot/5way1shot", "eval/clusters/nmi")),
    ("Loss", ("train/loss",)),
)
"""What is drawn together: a title, and the columns of the metrics table."""
MARKED = 60
"""Points of a curve up to which each one is marked."""


def draw_curves(rows: Sequence[dict[str, Any]], path: Path) -> bool:
    """Draw the panels that have numbers; whether there was anything to draw, and matplotlib to draw it with.

    Over the epochs; a panel whose numbers come several times an epoch is drawn over the steps.

    Args:
        rows: Rows of a metrics table.
        path: The PNG to write.
    """
    panels = [(title, [name for name in names if _points(rows, name, "step")]) for title, names in PANELS]
    panels = [(title, names) for title, names in panels if names]
    if not panels:
        return False
    try:
        from matplotlib.figure import Figure  # slow to import, and not on every machine that trains
    except ImportError:
        log.info("found no matplotlib: the report goes without curves")
        return False
    figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    for place, (title, names) in enumerate(panels):
        _draw_panel(figure.add_subplot(1, len(panels), place + 1), rows, title, names)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def _draw_panel(axes: Any, rows: Sequence[dict[str, Any]], title: str, names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    over = "step" if any(_repeats(_points(rows, name, "epoch")) for name in names) else "epoch"
    for name in names:
        points = _points(rows, name, over)
        moments, values = zip(*points, strict=True)
        axes.plot(moments, values, marker="o" if len(points) <= MARKED else "", markersize=3, label=name)
    axes.set_title(title)
    axes.set_xlabel(over)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7)


def _points(rows: Sequence[dict[str, Any]], name: str, over: str) -> list[tuple[int, float]]:
    """What there is to draw of a metric, as (moment, value)."""
    there = [row for row in rows if all(row.get(key) not in (None, "") for key in (name, "step", "epoch"))]
    return [(int(row[over]), float(row[name])) for row in there if math.isfinite(float(row[name]))]


def _repeats(points: Sequence[tuple[int, float]]) -> bool:
    return len({moment for moment, _ in points}) < len(points)
