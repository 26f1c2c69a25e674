"""Images of one cluster followed through the clusterings of a run, and curves of all clusters over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_lightning.report.cluster_sheets import ReadsImages
from ssl_lightning.report.contact_sheet import contact_sheet, save_png

COLUMNS = 10
"""Images of a cluster at one time."""


def draw_followed(path: Path, rows: Sequence[Int[Tensor, "_n"]], dataset: ReadsImages, side: int = 48) -> bool:
    """Write a contact sheet with a line for each clustering; return whether an image could be read.

    Args:
        path: The PNG file.
        rows: Rows of the images at each time, at most `COLUMNS`; none where there is no such cluster.
        dataset: The table of images.
        side: Side of an image in pixels.
    """
    blank = torch.full((3, side, side), 255, dtype=torch.uint8)
    cells, found = [], 0
    for line in rows:
        images, valid = dataset.read(line) if len(line) else ([], [])
        readable = [image for image, good in zip(images, valid, strict=True) if good][:COLUMNS]
        found += len(readable)
        cells += [*readable, *[blank] * (COLUMNS - len(readable))]
    if found:
        save_png(contact_sheet(cells, COLUMNS, side), path)
    return found > 0


def draw_history(
    path: Path,
    epochs: Sequence[float],
    sizes: Int[Tensor, "E K"],
    churn: Sequence[float],
    births: Sequence[int],
    deaths: Sequence[int],
) -> bool:
    """Plot cluster sizes, churn, births and deaths over the epochs; return whether a file was written.

    Nothing is written without matplotlib.

    Args:
        path: The PNG file.
        epochs: Of each clustering.
        sizes: Images of each cluster in each clustering.
        churn: Share of images that leave their cluster, from the second clustering on.
        births: Number of new clusters, from the second clustering on.
        deaths: Number of clusters that end, from the second clustering on.
    """
    try:
        figure = history_figure(epochs, sizes, churn, births, deaths)
    except ImportError:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def history_figure(
    moments: Sequence[float],
    sizes: Int[Tensor, "E K"],
    churn: Sequence[float],
    births: Sequence[int],
    deaths: Sequence[int],
    over: str = "epoch",
) -> Any:
    """The figure of `draw_history`.

    Args:
        moments: Epoch or step of each clustering.
        sizes: See `draw_history`.
        churn: See `draw_history`.
        births: See `draw_history`.
        deaths: See `draw_history`.
        over: Name of the horizontal axis.

    Raises:
        ImportError: Without matplotlib.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    of_sizes, of_churn, of_changes = figure.subplots(1, 3)
    ordered = sizes.double().sort(dim=1).values
    for share, name in (
        (1.0, "largest"),
        (0.75, "upper quarter"),
        (0.5, "median"),
        (0.25, "lower quarter"),
        (0.0, "smallest"),
    ):
        of_sizes.plot(moments, ordered[:, round(share * (sizes.shape[1] - 1))].tolist(), marker=".", label=name)
    of_sizes.set_title("Images of a cluster", fontsize=10)
    of_sizes.set_ylim(0, 1.4 * max(1.0, float(ordered.max())))  # room for the legend
    of_churn.plot(moments[1:], [100 * value for value in churn], marker=".", color="#4c78a8")
    of_churn.set_title("Churn: images that leave their cluster, %", fontsize=10)
    of_churn.set_ylim(0, 100)
    for values, name, color, width in ((births, "births", "#54a24b", 4), (deaths, "deaths", "#d62728", 1.5)):
        # births are often equal to deaths, which would hide them
        of_changes.plot(moments[1:], values, marker=".", label=name, color=color, linewidth=width)
    of_changes.set_title("Clusters without a match before or after", fontsize=10)
    of_changes.set_ylim(bottom=0)
    of_changes.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (of_sizes, of_churn, of_changes):
        axes.set_xlabel(over)
        axes.set_xlim(moments[0], moments[-1])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    of_sizes.legend(frameon=False, fontsize=8, loc="upper right", ncols=3)
    of_changes.legend(frameon=False, fontsize=8)
    return figure
