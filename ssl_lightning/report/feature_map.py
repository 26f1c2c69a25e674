"""Features as points in a plane, colored by cluster or by label."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor
from torch.nn import functional as F

from ssl_lightning.types import UNLABELLED

NAMED = 60
"""Groups up to which each one carries its name in the map."""
CROWDED = 0.025
"""Share of the map's extent by which names keep apart."""
FEWEST = 4
"""Points below which there is nothing to map."""


def to_plane(
    features: Float[Tensor, "N D"], how: Literal["tsne", "pca"] = "tsne", seed: int = 0
) -> Float[Tensor, "N 2"]:
    """Unit rows to two dimensions: t-SNE keeps neighborhoods, PCA keeps large distances and is linear.

    Van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008, by scikit-learn with perplexity 30 (less for
    few rows), from the principal axes. Seconds for 1,500 rows, minutes for 10,000.

    Args:
        features: Of the images to show.
        how: Which of the two.
        seed: Of t-SNE.

    Raises:
        ValueError: For fewer than four rows, or numbers that are not finite.
    """
    if len(features) < FEWEST:
        raise ValueError(f"found {len(features)} rows to map; expected at least {FEWEST}")
    if not features.isfinite().all():
        raise ValueError("found features that are not finite; expected numbers: the training may have diverged")
    rows = F.normalize(features, dim=1)
    rows = rows - rows.mean(0)
    axes = torch.linalg.svd(rows, full_matrices=False).Vh[:2]
    plane = F.pad(rows @ axes.T, (0, 2 - len(axes)))  # one feature spans a line
    return plane if how == "pca" else _tsne(rows, plane, seed)


def _tsne(rows: Float[Tensor, "N D"], plane: Float[Tensor, "N 2"], seed: int) -> Float[Tensor, "N 2"]:
    from sklearn.manifold import TSNE  # slow to import

    # as small as scikit-learn's own start; that of collapsed features would be NaN, at which it dies
    start = 1e-4 * plane / plane[:, 0].std().clamp(min=1e-6)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=start.numpy(), random_state=seed)  # type: ignore[arg-type]  # or an array
    return torch.from_numpy(tsne.fit_transform(rows.numpy()))


def draw_feature_map(
    points: Float[Tensor, "N 2"],
    panels: Mapping[str, Int[Tensor, "N"]],
    names: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """The same points once a panel, colored by group; the group's name stands in the midst of its points.

    Args:
        points: From `to_plane`.
        panels: Title to the group of each point; -1 is gray.
        names: Title to the names of its groups; numbers where there are none.
    """
    figure = Figure(figsize=(6.5 * len(panels), 6.2), layout="constrained")
    for place, (title, groups) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        _scatter(axes, points, groups, (names or {}).get(title, ()))
        axes.set_title(title)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _scatter(axes: Any, points: Float[Tensor, "N 2"], groups: Int[Tensor, "N"], names: Sequence[str]) -> None:
    without = points[groups == UNLABELLED]
    if len(without):
        axes.scatter(without[:, 0], without[:, 1], s=8, color="#cccccc", linewidths=0)
    used: list[int] = groups[groups != UNLABELLED].unique().tolist()
    places: list[Tensor] = []
    for group, color in zip(used, _colors(len(used)), strict=True):
        own = points[groups == group]
        axes.scatter(own[:, 0], own[:, 1], s=12, color=[color], linewidths=0)
        if len(used) <= NAMED:
            places.append(_place(own, places, CROWDED * float((points.amax(0) - points.amin(0)).max())))
            _write(axes, places[-1], names[group] if group < len(names) else str(group))


def _place(own: Float[Tensor, "n 2"], taken: Sequence[Tensor], distance: float) -> Float[Tensor, "2"]:
    """The point of a group nearest to its median at which no other name stands, if there is one."""
    own = own[(own - own.median(0).values).norm(dim=1).argsort(stable=True)]
    free = [point for point in own if all((point - other).norm() > distance for other in taken)]
    return free[0] if free else own[0]


def _write(axes: Any, place: Float[Tensor, "2"], name: str) -> None:
    halo = [withStroke(linewidth=3, foreground="white")]
    look = {"fontsize": 10, "fontweight": "bold", "color": "#111111", "path_effects": halo}
    axes.annotate(name, place.tolist(), ha="center", va="center", **look)


def _colors(count: int) -> list[Any]:
    """Colors that differ from their neighbors in the list: matplotlib's ten, or golden steps around the wheel."""
    if count <= 10:
        return list(matplotlib.color_sequences["tab10"])[:count]
    wheel = matplotlib.colormaps["hsv"]
    golden = (math.sqrt(5) - 1) / 2
    shades = np.array([[0.95], [0.7], [0.5]])
    return [np.append(np.array(wheel(step * golden % 1)[:3]) * shades[step % 3], 1.0) for step in range(count)]
