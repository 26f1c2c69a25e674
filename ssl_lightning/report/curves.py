"""Curves of a run's metrics over its epochs."""

import logging
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


def draw_curves(rows: Sequence[dict[str, Any]], path: Path) -> bool:
    """Draw the panels that have numbers; whether there was anything to draw, and matplotlib to draw it with.

    Args:
        rows: Rows of a metrics table.
        path: The PNG to write.
    """
    try:
        from matplotlib.figure import Figure  # slow to import, and not on every machine that trains
    except ImportError:
        log.info("found no matplotlib: the report goes without curves")
        return False
    panels = [(title, {name: points for name in names if (points := _points(rows, name))}) for title, names in PANELS]
    panels = [(title, curves) for title, curves in panels if curves]
    if not panels:
        return False
    figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    for place, (title, curves) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for name, points in curves.items():
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, marker="o" if len(points) < 60 else "", markersize=3, label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(row["epoch"]), float(row[name])) for row in rows if row.get(name) and row.get("epoch")]
