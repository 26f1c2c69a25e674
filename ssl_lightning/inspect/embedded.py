"""Features of the images of a run at any layer, and measures of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_lightning.callbacks.embed import embed_images
from ssl_lightning.errors import UsageError
from ssl_lightning.evaluation.knn import nearest_rows
from ssl_lightning.evaluation.rank import feature_std, participation_ratio, rank_me
from ssl_lightning.evaluation.similarity import linear_cka
from ssl_lightning.inspect.run import Run
from ssl_lightning.inspect.tables import table
from ssl_lightning.types import UNLABELLED, Weights

MOST_IMAGES = 2000
"""Images that are embedded by default, so that a notebook takes less than a minute on a laptop."""
NEIGHBORS = 10


@dataclass(frozen=True, eq=False)
class Features:
    """Features of some training images.

    Attributes:
        values: A row for each image.
        rows: Row of each image in the training set, ascending.
        labels: Class of each image, -1 where unknown.
        layer: Name of the layer.
        left_out: Images of the training set without features: they were not selected, or cannot be read.
    """

    values: Float[Tensor, "n D"]
    rows: Int[Tensor, "n"]
    labels: Int[Tensor, "n"]
    layer: str
    left_out: int

    def __str__(self) -> str:
        """Number of images and values, the layer, and how many images are left out."""
        text = f"{len(self.rows):,} images, {self.values.shape[1]} values each, layer {self.layer}"
        return f"{text}; {self.left_out:,} images left out" if self.left_out else text


def features(
    run: Run, layer: str | None = None, weights: Weights = "online", max_images: int = MOST_IMAGES
) -> Features:
    """Features of the center views of the training images. A second call with equal arguments computes nothing.

    Args:
        run: From `load_run`.
        layer: One of `run.method.layers` or of `stages(run)`; None for the first. Of a stage with a map of features,
            the maximum over the map is taken.
        weights: "ema" for the averaged weights of methods that have them; of stages always the trained weights.
        max_images: Of more images, as many are selected at random, always the same.

    Raises:
        UsageError: If there is no such layer, or the method keeps no averaged weights.
        DataError: If the images cannot be read.
    """
    layer = layer or run.method.layers[0]
    key = (layer, weights, max_images)
    if key not in run.computed:
        run.computed[key] = _computed(run, layer, weights, max_images)
    return run.computed[key]


def stages(run: Run) -> list[str]:
    """Names of the stages of the backbone, from its input to its output, which `features` takes as a layer."""
    body = run.method.backbone.body
    parts = [(name, part) for name, part in body.named_children() if any(_weighs(module) for module in part.modules())]
    return [name for name, _ in parts]


def layer_table(run: Run, weights: Weights = "online", max_images: int = MOST_IMAGES) -> Any:
    """A DataFrame with a row for each stage and layer: width, `collapse` and the agreement of neighbors.

    Args:
        run: From `load_run`.
        weights: See `features`.
        max_images: See `features`.
    """
    rows = []
    for layer in dict.fromkeys([*stages(run), *run.method.layers]):
        found = features(run, layer, weights, max_images)
        numbers = collapse(found) | {"width": found.values.shape[1]}
        rows.append({"layer": layer, **numbers, "agreement of neighbors": agreement_of_neighbors(found)})
    return table(rows, "layer")


def layer_similarity(run: Run, max_images: int = MOST_IMAGES) -> Any:
    """A DataFrame of the linear CKA of each pair of stages and layers, 0 to 1.

    Args:
        run: From `load_run`.
        max_images: See `features`.
    """
    names = list(dict.fromkeys([*stages(run), *run.method.layers]))
    values = {name: features(run, name, max_images=max_images).values for name in names}
    rows = [{"layer": a, **{b: linear_cka(values[a], values[b]) for b in names}} for a in names]
    return table(rows, "layer")


def collapse(found: Features) -> dict[str, float]:
    """Measures of collapse, which need no labels.

    `rankme` and `directions` (the participation ratio) are between 1 and the width: 1 if all features lie on one line.
    `std` is 1 if unit features are spread evenly and 0 if they are all equal. `cosine` is the mean cosine similarity of
    two images: near 1 if all features are almost equal.
    """
    unit = torch.nn.functional.normalize(found.values.double(), dim=1)
    count = len(unit)
    pairs = float(unit.sum(0).square().sum()) - float(unit.square().sum())
    return {
        "width": float(found.values.shape[1]),
        "rankme": rank_me(found.values),
        "directions": participation_ratio(found.values),
        "std": feature_std(found.values),
        "cosine": pairs / max(count * (count - 1), 1),
    }


def agreement_of_neighbors(found: Features, k: int = NEIGHBORS) -> float:
    """Mean share of the k nearest labeled images that have the class of the image; NaN without labels.

    Args:
        found: From `features`.
        k: Neighbors of each image.
    """
    known = found.labels != UNLABELLED
    values, labels = found.values[known], found.labels[known]
    if len(labels) <= k:
        return float("nan")
    near = nearest_rows(values, torch.arange(len(values)), k)
    return float((labels[near] == labels.unsqueeze(1)).double().mean())


def selected_rows(count: int, most: int) -> Int[Tensor, "n"]:
    """At most `most` of `count` rows, ascending: a random selection that is always the same."""
    if most < 1:
        raise UsageError(f"found max_images={most}; expected at least 1")
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


def _computed(run: Run, layer: str, weights: Weights, max_images: int) -> Features:
    known = [*run.method.layers, *stages(run)]
    if layer not in known:
        raise UsageError(f"found layer={layer!r}; expected one of {', '.join(dict.fromkeys(known))}")
    data, method = run.data, run.method
    rows = selected_rows(data.num_samples, max_images)
    if layer in method.layers:
        rows, values = embed_images(method, data, layer, weights=weights, selected=rows)
    else:
        with _pooled_outputs(method.backbone.body.get_submodule(layer)) as outputs:
            rows, _ = embed_images(method, data, selected=rows)
        values = torch.cat(outputs)
    return Features(values, rows, data.labels[rows], layer, data.num_samples - len(rows))


@contextmanager
def _pooled_outputs(part: nn.Module) -> Iterator[list[Float[Tensor, "_b C"]]]:
    """A context that collects what a part of a network gives, a row for each image."""
    outputs: list[Tensor] = []

    def note(_: nn.Module, __: Any, output: Tensor) -> None:
        outputs.append(_pooled(output.detach().float().cpu()))

    handle = part.register_forward_hook(note)
    try:
        yield outputs
    finally:
        handle.remove()


def _pooled(output: Tensor) -> Float[Tensor, "B C"]:
    """The maximum over the places of a map [B C h w], or over the tokens [B T C]."""
    if output.dim() == 4:
        return output.amax((2, 3))
    return output.amax(1) if output.dim() == 3 else output


def _weighs(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)
