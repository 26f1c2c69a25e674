"""Curves over K: what a person chooses the number of clusters by."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from ssl_lightning.errors import UsageError

PANELS = (
    ("Distance to the centroid", ("objective",), "falls with every K: look for the bend"),
    ("Stability over starts", ("stability",), "1: the same clusters whatever the start"),
    ("Imbalance of the sizes", ("imbalance",), "1: all clusters equal"),
    ("Agreement with the classes", ("ami", "nmi"), "NMI rises with K by itself, AMI does not"),
)
"""Title, what is drawn, and how to read it."""


def draw_k_curves(choices: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel a question: the mean over starts as a line, each start as a dot.

    Args:
        choices: For each K its `k`, and a list of numbers, one a start, under each name of `PANELS`; a panel without
            numbers is left out.

    Raises:
        ValueError: Without any K.
    """
    if not choices:
        raise UsageError("found no K to draw; expected at least one")
    ks = [choice["k"] for choice in choices]
    panels = [panel for panel in PANELS if any(choices[0][name] for name in panel[1])]
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for place, (title, names, reading) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for name in names:
            values = [choice[name] for choice in choices]
            (line,) = axes.plot(ks, [mean(value) for value in values], label=name)
            for k, value in zip(ks, values, strict=True):
                axes.scatter([k] * len(value), value, s=12, color=line.get_color(), alpha=0.6)
        axes.set_xscale("log")
        axes.set_xticks(ks, [str(k) for k in ks], rotation=45)
        axes.minorticks_off()
        axes.set_xlabel(f"K\n{reading}", fontsize=9)
        axes.set_title(title)
        axes.grid(visible=True, alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=8)
    return figure
