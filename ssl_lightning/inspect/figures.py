"""Figures for notebooks; a sentence in place of a figure for which something is missing."""

import itertools
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ssl_lightning.clustering.diagnostics import purity
from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation.knn import nearest_rows
from ssl_lightning.inspect.clustered import Clusters, clusters, history_of, saved_clusters, with_distances
from ssl_lightning.inspect.embedded import NEIGHBORS, Features, agreement_of_neighbors
from ssl_lightning.inspect.run import Run
from ssl_lightning.inspect.units import filters, strongest, varying_units
from ssl_lightning.report import clusters as cluster_figures
from ssl_lightning.report.contact_sheet import contact_sheet, representatives
from ssl_lightning.report.feature_map import FEWEST, draw_feature_map, to_plane
from ssl_lightning.report.followed import history_figure
from ssl_lightning.report.hover_map import hover_map
from ssl_lightning.report.thumbnails import Thumbnails
from ssl_lightning.types import UNLABELLED

EACH = 8
"""Images of a row of a contact sheet."""
THUMBNAIL = 32
"""Side of an image under the pointer in pixels; the script enlarges it."""
NUMBERED = 16
"""Up to this number of rows, a map of colors has its numbers."""
MAPPED = 1500
"""Points of a map, for which t-SNE takes some seconds."""


def draw_sizes(found: Clusters) -> Figure:
    """Sizes of the clusters, the largest first.

    Args:
        found: From `clusters`.
    """
    return cluster_figures.draw_cluster_sizes(found.sizes)


def draw_purity(run: Run, found: Clusters) -> Figure | str:
    """Share of the most frequent class in each cluster.

    Args:
        run: From `load_run`.
        found: From `clusters`.
    """
    own, known = run.data.labels, (run.data.labels != UNLABELLED) & (found.labels != UNLABELLED)
    if not bool(known.any()):
        return "no image of a cluster has a label: purity needs labels"
    commonest = float(own[known].bincount().max() / known.sum())
    sizes = found.labels[known].bincount(minlength=found.count)
    return cluster_figures.draw_purity(purity(found.labels, own, found.count), sizes, commonest)


def draw_clusters(run: Run, found: Clusters, of_images: Features, most: int = 12) -> Figure | str:
    """Images of the largest clusters: the first row nearest to the centroid, the second row farthest from it.

    Args:
        run: From `load_run`.
        found: From `clusters`.
        of_images: Features of some images; distances are known for these where the run has saved none.
        most: Number of clusters.
    """
    found = with_distances(found, of_images)
    sizes, sheets = found.sizes, {}
    for cluster in sizes.argsort(descending=True, stable=True).tolist():
        members = ((found.labels == cluster) & ~found.distances.isnan()).nonzero().squeeze(1)
        members = members[found.distances[members].argsort(stable=True)]
        if len(members) > 2 * EACH:
            members = torch.cat([members[:EACH], members[-EACH:]])
        if len(members) and len(sheets) < most:
            sheets[f"cluster {cluster}: {sizes[cluster]} images"] = _sheet(run, members)
    return cluster_figures.draw_sheets(sheets) if sheets else "no image is in a cluster"


def draw_neighbors(run: Run, of_images: Features, count: int = 8, neighbors: int = NEIGHBORS) -> Figure | str:
    """Some images, evenly spaced over the training set, with their nearest neighbors by cosine similarity.

    Args:
        run: From `load_run`.
        of_images: From `features`.
        count: Number of images.
        neighbors: Neighbors of each; a red frame for another class.
    """
    total = len(of_images.rows)
    if total <= neighbors:
        return f"found {total} images; {neighbors} neighbors need more"
    some = torch.linspace(0, total - 1, min(count, total)).long()
    near = nearest_rows(of_images.values, some, neighbors)
    own = of_images.labels
    other = (own[near] != own[some].unsqueeze(1)) & (own[near] != UNLABELLED) & (own[some] != UNLABELLED).unsqueeze(1)
    queries, shown = (_images(run, of_images.rows[places]) for places in (some, near.flatten()))
    figure = cluster_figures.draw_neighbors(queries, shown, other if run.has_labels else None)
    agreement = agreement_of_neighbors(of_images)
    if agreement == agreement:  # not NaN
        share = f"{100 * agreement:.1f} % of the {NEIGHBORS} nearest neighbors of all images have their class"
        figure.suptitle(share, fontsize=10)
    return figure


def map_points(
    of_images: Features, how: Literal["tsne", "pca"] = "tsne", max_points: int = MAPPED
) -> tuple[Float[Tensor, "n 2"], Int[Tensor, "n"]]:
    """Points of a map, and the positions of these images among the features.

    Args:
        of_images: From `features`.
        how: "tsne" preserves neighborhoods; distances between far groups mean nothing. "pca" is linear and instant.
        max_points: Of more images, as many are selected at random, always the same.
    """
    few = torch.randperm(len(of_images.rows), generator=torch.Generator().manual_seed(0))[:max_points]
    return to_plane(of_images.values[few], how), few


def draw_map(run: Run, found: Clusters, of_images: Features, how: Literal["tsne", "pca"] = "tsne") -> Figure | str:
    """A map of the features, colored by cluster and, with labels, by class.

    Args:
        run: From `load_run`.
        found: From `clusters`.
        of_images: From `features`.
        how: See `map_points`.
    """
    if len(of_images.rows) < FEWEST:
        return f"found {len(of_images.rows)} images; a map needs {FEWEST}"
    points, few = map_points(of_images, how)
    panels = {"by cluster": found.labels[of_images.rows[few]]}
    if run.has_labels:
        panels["by class"] = of_images.labels[few]
    return draw_feature_map(points, panels, {"by class": run.data.training.classes})


def draw_history(run: Run) -> Figure | str:
    """Sizes, churn, births and deaths of the clusters over the saved steps of a run.

    Args:
        run: From `load_run`.
    """
    history = history_of(run)
    if history is None:
        return _no_history(run)
    steps, found = history
    churn = [each.churn for each in found.transitions]
    changes = [[len(each.births) for each in found.transitions], [len(each.deaths) for each in found.transitions]]
    return history_figure([float(step) for step in steps], found.sizes, churn, *changes, over="step")


def draw_followed(run: Run, cluster: int | None = None, times: int = 6) -> Figure | str:
    """Images of one cluster at several saved steps, as clusters of consecutive steps are matched.

    Args:
        run: From `load_run`.
        cluster: Its id in the last clustering; None for the largest.
        times: Largest number of steps, evenly spaced.
    """
    history = history_of(run)
    if history is None:
        return _no_history(run)
    steps, found = history
    followed = found.follow(int(found.sizes[-1].argmax()) if cluster is None else cluster)
    places = torch.linspace(0, len(steps) - 1, min(times, len(steps)), dtype=torch.float64).round().long().tolist()
    sheets = {}
    for place in places:
        if followed[place] >= 0:
            rows = representatives(clusters(run, steps[place]).labels, None, followed[place], 2 * EACH)
            size = int(found.sizes[place, followed[place]])
            sheets[f"step {steps[place]}: cluster {followed[place]}, {size} images"] = _sheet(run, rows)
    return cluster_figures.draw_sheets(sheets) if sheets else "there is no such cluster at any step"


def _no_history(run: Run) -> str:
    saved = len(saved_clusters(run))
    return f"the run has saved {saved} clustering{'s' * (saved != 1)}; a history needs two of the same kind"


def hover_html(run: Run, of_images: Features, found: Clusters, max_points: int = 1000) -> str:
    """A map of the features by t-SNE that shows images under the pointer, as HTML: `IPython.display.HTML(...)`.

    Colors are classes, or clusters without labels. A selected image appears with its nearest neighbors.

    Args:
        run: From `load_run`.
        of_images: From `features`.
        found: From `clusters`.
        max_points: Of more images, as many are selected at random, always the same.
    """
    points, few = map_points(of_images, max_points=max_points)
    rows = of_images.rows[few]
    labels, names = (of_images.labels[few], run.data.training.classes) if run.has_labels else (found.labels[rows], ())
    near = nearest_rows(of_images.values[few], torch.arange(len(few)), min(EACH, len(few) - 1))
    thumbnails = Thumbnails.of(_images(run, rows), THUMBNAIL)
    title = of_images.layer
    paths = [run.data.training.name(row) for row in rows.tolist()]
    return hover_map({title: points}, thumbnails, labels, names, {title: near}, paths)


def draw_similarity(frame: Any) -> Figure | str:
    """A DataFrame of similarities from 0 to 1 as a map of colors, with the numbers.

    Args:
        frame: From `layer_similarity`, `feature_similarity`, `center_similarity` and the like.
    """
    values, count = frame.to_numpy(), len(frame)
    if bool(np.isnan(values).all()):
        return "no number is known: they need labels"
    longest = max(len(str(name)) for name in [*frame.columns, *frame.index])
    side = max(1.5, 0.4 + 0.1 * longest) + min(0.55 * count, 9)  # inches: names, then cells
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(values, vmin=min(0.0, float(np.nanmin(values))), vmax=1, cmap="viridis")
    axes.set_xticks(range(count), [str(name) for name in frame.columns], rotation=90)
    axes.set_yticks(range(count), [str(name) for name in frame.index])
    for row, column in itertools.product(range(count), range(count) if count <= NUMBERED else ()):
        value = values[row, column]
        color = "black" if value > 0.6 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_ylabel(frame.index.name or "")
    figure.colorbar(shown, shrink=0.8)
    return figure


def draw_filters(run: Run, most: int = 96) -> Figure | str:
    """The filters of the first convolution.

    Args:
        run: From `load_run`.
        most: Number of filters.
    """
    try:
        shown = filters(run)
    except UsageError as error:
        return str(error)
    title = f"{min(most, len(shown))} of {len(shown)} filters of {shown.shape[-1]} x {shown.shape[-2]} pixels"
    return cluster_figures.draw_sheets({title: contact_sheet(list(shown[:most]), columns=16, side=32)})


def draw_units(run: Run, of_images: Features, units: int = 8) -> Figure:
    """The images that activate each of some units most, the strongest first: the units that vary most over the images.

    Args:
        run: From `load_run`.
        of_images: From `features`, at any layer or stage.
        units: Number of units.
    """
    sheets = {}
    for unit in varying_units(of_images, units).tolist():
        rows, values = strongest(of_images, unit)
        title = f"unit {unit} of {of_images.layer}: {values[0]:.2f} to {values[-1]:.2f}"
        sheets[title] = contact_sheet(_images(run, rows), columns=12)
    return cluster_figures.draw_sheets(sheets, columns=2)


def _sheet(run: Run, rows: Int[Tensor, "n"]) -> Image.Image:
    return contact_sheet(_images(run, rows), columns=EACH)


def _images(run: Run, rows: Int[Tensor, "n"]) -> list[UInt8[Tensor, "3 _h _w"]]:
    return list(run.data.training.read(rows)[0])
