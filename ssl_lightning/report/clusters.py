"""Pictures of a clustering: sizes, purity, and a map of the features."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

MOST_ON_A_MAP = 1500
"""Rows of a map: more take t-SNE minutes and hide each other."""


def draw_sizes(sizes: Int[Tensor, "K"]) -> Figure:
    """Bars of the cluster sizes, largest first, with the size that equal clusters would have."""
    figure, axes = _axes(7.0, 3.2)
    ordered = sizes.sort(descending=True).values
    axes.bar(range(len(ordered)), ordered.numpy(), width=1.0, color="#4c78a8")
    axes.axhline(float(sizes.double().mean()), color="#e45756", linewidth=1, label="equal sizes")
    empty = int((sizes == 0).sum())
    axes.set(title=f"{len(sizes)} clusters, {empty} empty", xlabel="cluster, by size", ylabel="pictures")
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.legend(frameon=False)
    return figure


def draw_purity(purity: Float[Tensor, "K"], chance: float) -> Figure:
    """A histogram of the clusters' purities; empty ones, NaN, are left out.

    Args:
        purity: Share of each cluster's commonest class.
        chance: Share of the commonest class among all pictures.
    """
    figure, axes = _axes(7.0, 3.2)
    known = purity[~purity.isnan()]
    axes.hist(known.numpy(), bins=np.linspace(0, 1, 21).tolist(), color="#54a24b")
    axes.axvline(chance, color="#e45756", linewidth=1, label="one cluster of all pictures")
    axes.set(title=f"mean purity {float(known.mean()):.2f}", xlabel="share of the commonest class", ylabel="clusters")
    axes.legend(frameon=False)
    return figure


def feature_map(features: Float[Tensor, "N D"], seed: int = 0) -> Float[Tensor, "N 2"]:
    """Two coordinates a row by t-SNE on unit rows [van der Maaten & Hinton 2008], for at most 1,500 rows.

    Raises:
        ValueError: For more rows, or fewer than four.
    """
    from sklearn.manifold import TSNE  # slow to import

    if not 4 <= len(features) <= MOST_ON_A_MAP:
        raise ValueError(f"found {len(features)} rows for a map; expected 4 to {MOST_ON_A_MAP}: take a part of them")
    unit = torch.nn.functional.normalize(features.float(), dim=1)
    tsne = TSNE(perplexity=min(30.0, (len(unit) - 1) / 3), init="pca", random_state=seed)
    return torch.from_numpy(tsne.fit_transform(unit.cpu().numpy()))


def draw_map(
    points: Float[Tensor, "N 2"], labels: Int[Tensor, "N"], title: str, names: Sequence[str] | None = None
) -> Figure:
    """Points coloured by label; with names a legend says which colour is which.

    Args:
        points: From `feature_map`.
        labels: What colours them; -1 is grey.
        title: Of the picture.
        names: Of the labels, where there are few.
    """
    figure, axes = _axes(6.4, 5.2)
    kinds = [kind for kind in labels.unique().tolist() if kind >= 0]
    colours = mpl.colormaps["tab10" if len(kinds) <= 10 else "gist_ncar"].resampled(max(len(kinds), 1))
    without = labels < 0
    axes.scatter(*points[without].T.numpy(), s=5, color="#bbbbbb")
    for place, kind in enumerate(kinds):
        label = names[kind] if names is not None and kind < len(names) else str(kind)
        axes.scatter(*points[labels == kind].T.numpy(), s=7, color=colours(place), label=label)
    axes.set(title=title, xticks=[], yticks=[])
    if names is not None:
        axes.legend(frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left", markerscale=2)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure apart from pyplot, which would keep every one of them alive."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Any = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
