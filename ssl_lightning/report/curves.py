"""Plots of a run's metrics over its epochs."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

PANELS = (
    ("Clusters", ("cluster/nmi_labels", "cluster/nmi_previous", "cluster/reassigned")),
    ("Evaluated", ("eval/knn/top1", "eval/linear/top1", "eval/fewshot/5way1shot", "eval/clusters/nmi")),
    ("Loss", ("train/loss",)),
)
"""Panels: a title, and the columns of the metrics table."""
CLUSTER_PANELS = (
    ("Agreement with the classes", ("cluster/nmi_labels", "cluster/nmi_chance", "cluster/ami_labels")),
    ("From one clustering to the next", ("cluster/nmi_previous", "cluster/reassigned")),
    ("Sizes", ("cluster/entropy", "cluster/largest_share")),
    ("Imbalance, 1 where all sizes are equal", ("cluster/imbalance",)),
    ("Empty clusters", ("cluster/empty",)),
    ("Distance to the centroid", ("cluster/objective",)),
    ("Neighbors", ("cluster/close_purity", "cluster/background_purity", "cluster/chance_purity")),
)
"""Panels of cluster metrics."""
COLUMNS = 3
"""Panels per row."""
MARKED = 60
"""Up to this number of points, each one has a marker."""


def draw_curves(
    rows: Sequence[dict[str, Any]], path: Path, panels: Sequence[tuple[str, Sequence[str]]] = PANELS
) -> bool:
    """Plot the panels that have values; return whether a file was written.

    The horizontal axis is the epoch, or the step for panels with several values per epoch. Nothing is written without
    matplotlib.

    Args:
        rows: Rows of a metrics table.
        path: The PNG file.
        panels: Titles, each with its columns of the table.
    """
    shown = [(title, [name for name in names if _points(rows, name, "step")]) for title, names in panels]
    shown = [(title, names) for title, names in shown if names]
    functions = [partial(_draw_panel, rows=rows, title=title, names=names) for title, names in shown]
    return _saved(_grid(functions), path)


def draw_comparison(tables: Mapping[str, Sequence[dict[str, Any]]], path: Path, metrics: Sequence[str]) -> bool:
    """Plot one panel for each metric, with a curve over the steps for each run; return whether a file was written.

    Nothing is written without matplotlib.

    Args:
        tables: Rows of the metrics tables by the names of their runs.
        path: The PNG file.
        metrics: Columns of the tables; those without values have no panel.
    """
    return _saved(comparison_figure(tables, metrics), path)


def comparison_figure(tables: Mapping[str, Sequence[dict[str, Any]]], metrics: Sequence[str]) -> Any:
    """The figure of `draw_comparison`; None without values or without matplotlib."""
    curves = {name: {run: _points(rows, name, "step") for run, rows in tables.items()} for name in metrics}
    shown = {name: points for name, points in curves.items() if any(points.values())}
    return _grid([partial(_draw_runs, name=name, curves=points) for name, points in shown.items()])


def _grid(panels: Sequence[Callable[[Any], None]]) -> Any:
    """A figure with a panel for each function, which takes its axes; None if there are none."""
    if not panels:
        return None
    try:
        from matplotlib.figure import Figure  # slow to import
    except ImportError:
        log.info("found no matplotlib: the report has no curves")
        return None
    columns, lines = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4.6 * columns, 3.6 * lines), layout="constrained")
    for place, draw in enumerate(panels):
        draw(figure.add_subplot(lines, columns, place + 1))
    return figure


def _saved(figure: Any, path: Path) -> bool:
    """Write a figure; return whether there is one."""
    if figure is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def _draw_runs(axes: Any, name: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """One metric of several runs over the steps."""
    for run, points in curves.items():
        steps, values = [step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, marker="o" if len(points) <= MARKED else "", markersize=3, label=run)
    axes.set_title(name)
    axes.set_xlabel("step")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7)


def _draw_panel(axes: Any, rows: Sequence[dict[str, Any]], title: str, names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    over = "step" if any(_repeats(_points(rows, name, "epoch")) for name in names) else "epoch"
    lowest, reached = 0.0, set()
    for name in names:
        points = _points(rows, name, over)
        moments, values = zip(*points, strict=True)
        lowest, reached = min(lowest, *values), reached | {*moments}
        axes.plot(moments, values, marker="o" if len(points) <= MARKED else "", markersize=3, label=name)
    if lowest == 0 > axes.get_ylim()[0]:
        axes.set_ylim(bottom=0)  # counts and fractions start at zero
    if len(reached) == 1:
        axes.set_xlim(min(reached) - 1, min(reached) + 1)
    axes.set_title(title)
    axes.set_xlabel(over)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7)


def _points(rows: Sequence[dict[str, Any]], name: str, over: str) -> list[tuple[int, float]]:
    """The values of a metric as (epoch or step, value)."""
    there = [row for row in rows if all(row.get(key) not in (None, "") for key in (name, "step", "epoch"))]
    return [(int(row[over]), float(row[name])) for row in there if math.isfinite(float(row[name]))]


def _repeats(points: Sequence[tuple[int, float]]) -> bool:
    return len({moment for moment, _ in points}) < len(points)
