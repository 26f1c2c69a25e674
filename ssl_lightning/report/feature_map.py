"""Scatter plots of features in two dimensions, colored by cluster or by label."""

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

from ssl_lightning.decompositions import right_singular_vectors
from ssl_lightning.types import UNLABELLED

NAMED = 60
"""Up to this number of groups, each one is labeled with its name."""
CROWDED = 0.025
"""Least distance of two names, as a fraction of the extent of the map."""
FEWEST = 4
"""Smallest number of points of a map."""


def to_plane(
    features: Float[Tensor, "N D"], how: Literal["tsne", "pca"] = "tsne", seed: int = 0
) -> Float[Tensor, "N 2"]:
    """Project unit rows to two dimensions: t-SNE preserves neighborhoods; PCA is linear and preserves large distances.

    t-SNE (van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008) is that of scikit-learn with perplexity
    30 (less for few rows), initialized by PCA. It takes seconds for 1,500 rows and minutes for 10,000.

    Args:
        features: Features of the displayed images.
        how: "tsne" or "pca".
        seed: Seed of t-SNE.

    Raises:
        ValueError: For fewer than four rows, or values that are not finite.
    """
    if len(features) < FEWEST:
        raise ValueError(f"found {len(features)} rows to map; expected at least {FEWEST}")
    if not features.isfinite().all():
        raise ValueError("found features that are not finite; expected numbers: the training may have diverged")
    rows = F.normalize(features, dim=1)
    rows = rows - rows.mean(0)
    axes = right_singular_vectors(rows)[:2].nan_to_num()
    plane = F.pad(rows @ axes.T, (0, 2 - len(axes)))  # a single feature gives one axis
    return plane if how == "pca" else _tsne(rows, plane, seed)


def _tsne(rows: Float[Tensor, "N D"], plane: Float[Tensor, "N 2"], seed: int) -> Float[Tensor, "N 2"]:
    from sklearn.manifold import TSNE  # slow to import

    # the scale of scikit-learn's own initialization, which is NaN for collapsed features
    start = 1e-4 * plane / plane[:, 0].std().clamp(min=1e-6)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=start.numpy(), random_state=seed)  # type: ignore[arg-type]  # or an array
    return torch.from_numpy(tsne.fit_transform(rows.numpy()))


def draw_feature_map(
    points: Float[Tensor, "N 2"],
    panels: Mapping[str, Int[Tensor, "N"]],
    names: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """One scatter plot per panel, colored by group, with the name of each group near the median of its points.

    Args:
        points: Points from `to_plane`.
        panels: Title to the group of each point; -1 is gray.
        names: Title to the names of its groups; ids if there are none.
    """
    return _draw_row({title: (points, groups, (names or {}).get(title, ())) for title, groups in panels.items()})


def draw_feature_maps(
    planes: Mapping[str, Float[Tensor, "N 2"]], groups: Int[Tensor, "N"], names: Sequence[str] = ()
) -> Figure:
    """One scatter plot per plane with the same colors, such as the features before and after training.

    Args:
        planes: Title to the points of the same images, from `to_plane`.
        groups: Group of each image; -1 is gray.
        names: Names of the groups; ids if there are none.
    """
    return _draw_row({title: (points, groups, names) for title, points in planes.items()})


def _draw_row(panels: Mapping[str, tuple[Tensor, Tensor, Sequence[str]]]) -> Figure:
    """Scatter plots side by side, each of points, their groups and the names of the groups."""
    figure = Figure(figsize=(6.5 * len(panels), 6.2), layout="constrained")
    for place, (title, (points, groups, names)) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        _scatter(axes, points, groups, names)
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
    """The point of a group that is nearest to its median and has no other name nearby, if there is one."""
    own = own[(own - own.median(0).values).norm(dim=1).argsort(stable=True)]
    free = [point for point in own if all((point - other).norm() > distance for other in taken)]
    return free[0] if free else own[0]


def _write(axes: Any, place: Float[Tensor, "2"], name: str) -> None:
    halo = [withStroke(linewidth=3, foreground="white")]
    look = {"fontsize": 10, "fontweight": "bold", "color": "#111111", "path_effects": halo}
    text = name.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")  # not a formula, which could be wrong
    axes.annotate(text, place.tolist(), ha="center", va="center", **look)


def _colors(count: int) -> list[Any]:
    """Colors in which neighbors in the list differ: matplotlib's ten, or golden-ratio steps in hue."""
    if count <= 10:
        return list(matplotlib.color_sequences["tab10"])[:count]
    wheel = matplotlib.colormaps["hsv"]
    golden = (math.sqrt(5) - 1) / 2
    shades = np.array([[0.95], [0.7], [0.5]])
    return [np.append(np.array(wheel(step * golden % 1)[:3]) * shades[step % 3], 1.0) for step in range(count)]
